"""Links and pipes of strangers' in a run's folder, wherever a run reads, writes or removes."""

import json
import os
import shutil
from pathlib import Path

from tests.faults.strangers import Cases, Harm

SECRET = "outside/secret.json"
FILES = ("config.toml", "environment.json", "data.json", "samples.json", "metrics.jsonl",
         "result.json", "README.md", "test_predictions.jsonl")  # fmt: skip
FOLDERS = ("tensorboard", "checkpoints", "model")


def put_link(path: str, target: str = SECRET) -> Harm:
    """A link at `path` in place of what is there, to `target`: both below the place."""

    def harm(place: Path) -> None:
        here = place / path
        here.unlink(missing_ok=True)
        here.symlink_to(os.path.relpath(place / target, here.parent))

    return harm


def move_out(path: str) -> Harm:
    """The file or folder at `path` outside, and a link to it in its place."""

    def harm(place: Path) -> None:
        here = place / path
        here.parent.mkdir(exist_ok=True)
        if here.exists():
            shutil.move(here, place / "outside" / here.name)
        else:
            (place / "outside" / here.name).mkdir()
        here.symlink_to(os.path.relpath(place / "outside" / here.name, here.parent))

    return harm


def put_pipe(path: str) -> Harm:
    def harm(place: Path) -> None:
        (place / path).unlink(missing_ok=True)
        os.mkfifo(place / path)

    return harm


def put_samples(place: Path) -> None:
    """Answers before the training, shown beside those after it, that draw over their line."""
    answers = {"good film": ["\rneg\x1b[2J", 0.5], "bad film": ["\r\u202e", 0.5]}
    (place / "runs" / "two" / "samples.json").write_text(json.dumps(answers), encoding="utf-8")


def resumed_cases() -> Cases:
    """What --resume of runs/two meets, which was stopped after its second step."""
    step = "runs/two/checkpoints/step-00000002"
    cases: Cases = {"samples that steer": put_samples}
    for name in ("runs/.two.lock", *(f"runs/two/{name}" for name in FILES)):
        cases[f"{name} is a link"] = put_link(name)
    for name in ("runs/.two.lock", "runs/two/metrics.jsonl", "runs/two/samples.json"):
        cases[f"{name} is a link to nothing"] = put_link(name, "outside/new.json")
        cases[f"{name} is a pipe"] = put_pipe(name)
    for name in FOLDERS:
        cases[f"{name} is a link"] = move_out(f"runs/two/{name}")
    cases["a checkpoint is a link"] = move_out(step)
    cases["an older checkpoint is a link"] = move_out("runs/two/checkpoints/step-00000001")
    for name in ("state.json", "manifest.json", "optimizer.safetensors"):
        cases[f"a checkpoint's {name} is a link"] = move_out(f"{step}/{name}")
        cases[f"a checkpoint's {name} is a pipe"] = put_pipe(f"{step}/{name}")
    return cases


def finished_cases() -> Cases:
    """What asking, testing or training on runs/one meets, which is finished."""
    names = ("environment.json", "data.json", "result.json", "model/openloop.json",
             "model/manifest.json", "model/labels.json", "model/bpe.codes")  # fmt: skip
    cases: Cases = {f"{name} is a link": put_link(f"runs/one/{name}") for name in names}
    cases["model is moved"] = move_out("runs/one/model")
    cases["checkpoints are moved"] = move_out("runs/one/checkpoints")
    cases["a base is a link"] = move_out("runs/one/model/base")
    return cases
