"""Run folders of strangers: runs/one is asked, or trained on from."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tests.edits import edit
from tests.faults.strangers import CODE, TEXTS, WEIGHTS, Cases, Harm, link, reseal


def set_record(**values: Any) -> Harm:
    """Other words in openloop.json, all lists of files made true."""

    def harm(place: Path) -> None:
        run = place / "runs" / "one"
        (run / "model" / "head_code.py").write_text(CODE, encoding="utf-8")
        edit(run / "model" / "openloop.json", **values)
        reseal(run)

    return harm


def set_part(part: str, **values: Any) -> Harm:
    """Other words in "model" or "base" of openloop.json; those that are `...` go."""

    def harm(place: Path) -> None:
        run = place / "runs" / "one"
        path = run / "model" / "openloop.json"
        held = json.loads(path.read_text(encoding="utf-8"))[part] | values
        edit(path, **{part: {k: v for k, v in held.items() if v is not ...}})
        reseal(run)

    return harm


def set_run_text(name: str, content: bytes) -> Harm:
    def harm(place: Path) -> None:
        (place / "runs" / "one" / name).write_bytes(content)
        if name != "result.json":
            reseal(place / "runs" / "one")

    return harm


def set_adapter(**values: Any) -> Harm:
    def harm(place: Path) -> None:
        edit(place / "runs" / "one" / "model" / "adapter_config.json", **values)
        reseal(place / "runs" / "one")

    return harm


def append_settings(text: str) -> Harm:
    """Settings at the end of a run's config.toml."""

    def harm(place: Path) -> None:
        path = place / "runs" / "one" / "config.toml"
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
        reseal(place / "runs" / "one")

    return harm


def change_setting(old: str, new: str) -> Harm:
    def harm(place: Path) -> None:
        path = place / "runs" / "one" / "config.toml"
        text = path.read_text(encoding="utf-8")
        assert old in text, old
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        reseal(place / "runs" / "one")

    return harm


def ring(place: Path) -> None:
    """Two runs, each the base of the other."""
    shutil.copytree(place / "runs" / "one", place / "runs" / "three")
    for name, other in (("one", "three"), ("three", "one")):
        path = place / "runs" / name / "model" / "openloop.json"
        base = json.loads(path.read_text(encoding="utf-8"))["base"]
        edit(path, base=base | {"source": f"run:{place}/runs/{other}"})
        reseal(place / "runs" / name)


def itself(place: Path) -> None:
    set_part("base", source=f"run:{place}/runs/one")(place)


def tower(place: Path) -> None:
    """A thousand runs, each on top of the next."""
    run = place / "runs" / "one"
    for number in range(60):
        shutil.copytree(run / "model", place / "runs" / f"t{number}" / "model")
        path = place / "runs" / f"t{number}" / "model" / "openloop.json"
        base = json.loads(path.read_text(encoding="utf-8"))["base"]
        edit(path, base=base | {"source": f"run:{place}/runs/t{number + 1}"})
    set_part("base", source=f"run:{place}/runs/t0")(place)


def linked_model(place: Path) -> None:
    model = place / "runs" / "one" / "model"
    shutil.copytree(model, place / "outside" / "model")
    shutil.rmtree(model)
    model.symlink_to("../../outside/model")


def run_link(name: str, target: str) -> Harm:
    return lambda place: link(place / "runs" / "one" / name, target)


def run_pipe(name: str) -> Harm:
    def harm(place: Path) -> None:
        (place / "runs" / "one" / name).unlink(missing_ok=True)
        os.mkfifo(place / "runs" / "one" / name)

    return harm


def list_elsewhere(place: Path) -> None:
    name = "../../outside/secret.json"
    edit(place / "runs" / "one" / "result.json", files={name: "0" * 64})


def manifest_elsewhere(place: Path) -> None:
    files = {"../../../outside/secret.json": {"bytes": 1, "sha256": "0" * 64}}
    edit(place / "runs" / "one" / "model" / "manifest.json", files=files)


def planted_vocabulary(place: Path) -> None:
    (place / "runs" / "one" / "model" / "vocab.txt").write_text("evil\n", encoding="utf-8")


LORA = {"targets": ["query"], "rank": 2, "alpha": 4.0, "dropout": 0.0, "layers": None}

RUNS: Cases = {
    "record: format 99": set_record(format=99),
    "record: format a text": set_record(format="1"),
    "record: format true": set_record(format=True),
    "record: no base": set_record(base=...),
    "record: base null": set_record(base=None),
    "record: no model": set_record(model=...),
    "record: files a list": set_record(files=[1]),
    "record: head code": set_record(head_code={"class": "Head", "sha256": "0"}),
    "record: head code a list": set_record(head_code=["Head"]),
    "record: head code of an attribute": set_record(head_code={"class": 5}),
    "model: a head of their own": set_part("model", head_kind="outside/evil.py:Head"),
    "model: a head of nobody": set_part("model", head_kind="stranger"),
    "model: a head's kind a list": set_part("model", head_kind=["linear"]),
    "model: head words": set_part("model", head_args={"__class__": 1, "width": 10}),
    "model: a wide head": set_part("model", head_kind="mlp", head_args={"width": 10**12}),
    "model: a fairly wide head": set_part("model", head_kind="mlp", head_args={"width": 10**9}),
    "model: labels 10^12": set_part("model", num_labels=10**12, label_names=[]),
    "model: labels 10^9": set_part("model", num_labels=10**9, label_names=[]),
    "model: labels -1": set_part("model", num_labels=-1, label_names=[]),
    "model: labels a text": set_part("model", num_labels="2"),
    "model: labels named alike": set_part("model", label_names=["a", "a"]),
    "model: labels that steer": set_part("model", label_names=["\x1b[31mneg", "\u202epos\n\rx"]),
    "model: labels that overprint": set_part("model", label_names=["\rneg", "\rFAKE"]),
    "model: labels of numbers": set_part("model", label_names=[1, None]),
    "model: labels swapped": set_part("model", label_names=["pos", "neg"]),
    "model: kind": set_part("model", kind="stranger"),
    "model: a regression": set_part("model", kind="regression", num_labels=1, label_names=[],
                                     target_mean=1e308, target_deviation=1e308),
    "model: a mean of nothing": set_part("model", target_mean=None),
    "model: rank 10^9": set_part("model", lora=LORA | {"rank": 10**9}),
    "model: rank 0": set_part("model", lora=LORA | {"rank": 0}),
    "model: alpha a text": set_part("model", lora=LORA | {"alpha": "x"}),
    "model: alpha infinite": set_part("model", lora=LORA | {"alpha": float("inf")}),
    "model: an unknown variant": set_part("model", lora=LORA | {"variant": "stranger"}),
    "model: layers of a table": set_part("model", lora=LORA | {"layers": {"a": 1}}),
    "model: lora a list": set_part("model", lora=[1]),
    "model: lora empty": set_part("model", lora={}),
    "model: no lora": set_part("model", lora=None),
    "model: unknown words": set_part("model", allow_code=True),
    "model: more unknown words": set_part("model", stranger=1),
    "model: dropout a list": set_part("model", dropout=[0.1]),
    "model: trains": set_part("model", train="last:999999999999"),
    "model: revision": set_part("model", revision=5),
    "base: itself": itself,
    "base: a ring": ring,
    "base: a tower": tower,
    "base: of a hub": set_part("base", source="hub:stranger/repo"),
    "base: of a hub, as a path": set_part("base", source="hub:../../outside"),
    "base: a revision of a hub": set_part("base", source="hub:stranger/repo", revision="../../x"),
    "base: an address": set_part("base", source="https://example.org/x"),
    "base: elsewhere": set_part("base", source="outside"),
    "base: a package": set_part("base", source="package:os/x"),
    "base: a package's path": set_part("base", source="package:torch/../../../outside"),
    "base: a number": set_part("base", source=5),
    "base: in memory": set_part("base", in_memory=True),
    "base: in a text's memory": set_part("base", in_memory="yes"),
    "base: no hash": set_part("base", sha256=None),
    "base: a device": set_part("base", source="/dev"),
    "base: a process": set_part("base", source="/proc/self/cwd/outside"),
    "adapter: no targets": set_adapter(target_modules=...),
    "adapter: a pattern": set_adapter(target_modules="(x+x+)+y"),
    "adapter: patterns of ranks": set_adapter(rank_pattern={".*" * 12 + "Z": 2}),
    "adapter: patterns of alphas": set_adapter(alpha_pattern={"(.|.)" * 30 + "Z": 2}),
    "adapter: targets of numbers": set_adapter(target_modules=[1]),
    "adapter: targets of nothing": set_adapter(target_modules=["nowhere"]),
    "adapter: r 0": set_adapter(r=0),
    "adapter: r a text": set_adapter(r="x"),
    "adapter: another method": set_adapter(peft_type="STRANGER"),
    "adapter: dora": set_adapter(use_dora=True),
    "adapter: a base of a hub": set_adapter(base_model_name_or_path="stranger/repo"),
    "adapter: code": set_adapter(auto_mapping={"parent_library": "evil"}),
    "model is a link": linked_model,
    "weights are a link": run_link("model/adapter_model.safetensors", "../../../outside/evil.bin"),
    "head is a link": run_link("model/head.safetensors", "../../../outside/evil.bin"),
    "settings are a link": run_link("config.toml", "../../outside/secret.json"),
    "settings are a pipe": run_pipe("config.toml"),
    "result is a pipe": run_pipe("result.json"),
    "environment is a pipe": run_pipe("environment.json"),
    "record is a pipe": run_pipe("model/openloop.json"),
    "manifest is a pipe": run_pipe("model/manifest.json"),
    "tokenizer is a pipe": run_pipe("model/tokenizer.json"),
    "a list of files elsewhere": list_elsewhere,
    "a manifest of files elsewhere": manifest_elsewhere,
    "a vocabulary planted": planted_vocabulary,
    "settings: 100,000 threads": change_setting("[run]\n", "[run]\nthreads = 100000\n"),
    "settings: a name that leaves": change_setting('name = "one"', 'name = "../../outside/x"'),
    "settings: a nested value": append_settings(f"\nx = {'[' * 50_000}{']' * 50_000}\n"),
    "settings: a nested key": append_settings("\n[" + ".".join(["a"] * 20_000) + "]\nx = 1\n"),
    "settings: a long number": append_settings(f"\nx = {'9' * 100_000}\n"),
    "settings: keys that steer": append_settings('\n["\\u001b[31m\\u202e"]\nx = 1\n'),
    "settings: not UTF-8": set_run_text("config.toml", b"[run]\nname = '\xff'\n"),
    "settings: length 10^12": change_setting("max_length = 32", "max_length = 1000000000000"),
    "settings: rows 10^12": change_setting('micro_batch_size = "auto"',
                                         "micro_batch_size = 1000000000000"),
    "settings: an encoding that unpacks": change_setting('encoding = "utf-8"',
                                                         'encoding = "zlib_codec"'),
    "settings: an encoding that runs": change_setting('encoding = "utf-8"', 'encoding = "idna"'),
    "settings: a device": change_setting('device = "cpu"', 'device = "cuda:99"'),
    "settings: a dtype": change_setting('dtype = "fp32"', 'dtype = "fp16"'),
    "settings: a head of their own": change_setting('kind = "linear"',
                                                    'kind = "outside/evil.py:Head"'),
    "environment: a dtype": set_run_text("environment.json", b'{"dtype": "evil", "device": "cpu"}'),
}  # fmt: skip


def run_cases() -> Cases:
    cases = dict(RUNS)
    for name in ("config.toml", "environment.json", "result.json", "data.json",
                 "model/openloop.json", "model/adapter_config.json"):  # fmt: skip
        for title, content in TEXTS.items():
            if "MB" not in title:
                cases[f"{name}: {title}"] = set_run_text(name, content)
    for title, content in WEIGHTS.items():
        for name in ("model/adapter_model.safetensors", "model/head.safetensors"):
            cases[f"{name}: {title}"] = set_run_text(name, content)
    return cases
