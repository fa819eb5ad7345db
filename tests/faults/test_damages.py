"""Every file of a run, its checkpoints, its model, its base and the cache, damaged in every way:
each command then gives the same answers, or one message that names the file."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.watched import Outcome, Trial, run_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes()) or bytearray(b" ")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def put_an_object(path: Path) -> None:
    path.write_bytes(b"{}")


def put_a_list(path: Path) -> None:
    path.write_bytes(b"[]\n")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def delete(path: Path) -> None:
    path.unlink()


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_another(path: Path) -> None:
    """A link to a copy with one bit flipped."""
    other = path.with_name(f"{path.name}.other")
    path.rename(other)
    flip_a_bit(other)
    path.symlink_to(other.name)


WAYS = (empty, halve, flip_a_bit, put_an_object, put_a_list, append, delete, make_a_folder,
        link_to_another)  # fmt: skip


def ask() -> int:
    """Predict, twice the same two texts."""
    import predict

    return predict.main(["--run", "runs/one", "--json", "good film", "bad film"])


def score() -> int:
    import train

    return train.main(["--config", "recipe.toml", "--eval-only"])


def go_on() -> int:
    """Resume the stopped run; its bits are printed last."""
    import train

    code = train.main(["--config", "recipe.toml", "run.name=two", "--resume"])
    files = ("model/adapter_model.safetensors", "model/head.safetensors", "test_predictions.jsonl")
    if code == 0:
        print(*(hashlib.sha256(Path("runs/two", f).read_bytes()).hexdigest() for f in files))
    return code


COMMANDS: dict[str, tuple[Callable[[], int], str]] = {
    "predict": (ask, "runs/one"),
    "eval-only": (score, "runs/one"),
    "resume": (go_on, "runs/two"),
}


UNREAD = ("recipe.toml", "reviews.csv")  # what the person gives, and what no command reads back
TOLD = ("tensorboard/", ".lock", "README.md", "test_predictions.jsonl")


def damages(pristine: Path) -> Iterator[Trial]:
    """Each file that a command may read: in every way before predict, in every other way, by turns,
    before those that take longer."""
    files = sorted(str(p.relative_to(pristine)) for p in pristine.rglob("*") if p.is_file())
    for command, (action, run) in COMMANDS.items():
        other = "runs/two" if run == "runs/one" else "runs/one"
        left_out = (other, *UNREAD, *(("cache/",) if command == "predict" else ()))
        for number, name in enumerate(files):
            if name.startswith(left_out) or any(word in name for word in TOLD):
                continue
            if command != "resume" and "/checkpoints/" in name:
                continue
            for turn, way in enumerate(WAYS):
                if command == "predict" or (number + turn) % 2 == 0:
                    yield Trial(
                        f"{command}: {name}: {way.__name__}", damage(pristine, name, way), action,
                        word=name,
                    )  # fmt: skip


def damage(pristine: Path, name: str, way: Callable[[Path], None]) -> Callable[[Path], None]:
    """Damage a file, which in another place may lie under another key of the cache."""
    alike = sorted(pristine.rglob(Path(name).name)).index(pristine / name)
    return lambda place: way(sorted(place.rglob(Path(name).name))[alike])


def answer(outcome: Outcome) -> str:
    """What a command answered: all of predict's, the last lines of the others."""
    lines = outcome.out.strip().splitlines()
    return "\n".join(lines if outcome.trial.name.startswith("predict") else lines[-1:])


def holds(outcome: Outcome, right: str) -> bool:
    """The same answers, or a message with the name of the file or of what it is read as."""
    if outcome.code == 0:
        return answer(outcome) == right
    return outcome.refused and any(word in outcome.err for word in words_for(outcome.trial.word))


def words_for(name: str) -> list[str]:
    """What a message about a damaged file may call it: its name; for a file of a base, a tokenizer
    or a checkpoint also that, which is bad as a whole."""
    path = Path(name)
    words = [path.name]
    if path.parts[0] == "base":
        words.append("base")
    if path.name.startswith("tokenizer"):
        words.append("tokenizer")
    return words + [part for part in path.parts if part.startswith("step-")]


def test_damaged_files_give_the_same_answers_or_a_message(places, capsys):
    whole = [Trial(f"{name}: whole", lambda p: None, act) for name, (act, _) in COMMANDS.items()]
    right: dict[str, str] = {}
    for outcome in run_trials(whole, places):
        assert outcome.code == 0, outcome.describe()
        right[outcome.trial.name.partition(":")[0]] = answer(outcome)
    trials, held, failed = 0, 0, []
    same = 0
    only = os.environ.get("OPENLOOP_ONLY", "")  # a part of a case's name, for whoever mends one
    chosen = (t for t in damages(places[0].pristine) if re.search(only, t.name))
    for outcome in run_trials(chosen, places):
        trials += 1
        if holds(outcome, right[outcome.trial.name.partition(":")[0]]):
            held += 1
            same += outcome.code == 0
        else:
            failed.append(outcome.describe())
            with capsys.disabled():
                print(f"\n{failed[-1]}", flush=True)
    with capsys.disabled():
        print(f"\ndamages {held}/{trials} ({same} the same answers, the others refused)")
    assert failed == []
