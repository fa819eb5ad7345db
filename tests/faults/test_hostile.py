"""Strangers' model folders, run folders, tables, recipes and texts: no code of theirs runs, no
pickle is opened, no socket, nothing outside is read or written, nothing steers the terminal; and
each ends with an answer or with one message, within seconds."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.strange_links import finished_cases, resumed_cases
from tests.faults.strange_models import model_cases
from tests.faults.strange_runs import run_cases
from tests.faults.strange_tables import FILTERS, RECIPES, SPOKEN, table_cases
from tests.faults.strangers import Harm, plant_outside
from tests.faults.watched import Outcome, Trial, run_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OWN = ("runs", "cache")
# no kernels: a build takes longer than a message may, and the place's own kernels are its to load
SMALL = ("model.source=base", "data.max_length=32", "speed.native=off")
SOURCES = ("base: itself", "base: a ring", "base: a tower", "base: of a hub", "model is a link",
           "a vocabulary planted", "record: format 99", "model: a head of their own",
           "model: rank 10^9", "model: labels swapped")  # fmt: skip


TESTED = ("record: no base", "model: a head of their own", "model: labels that steer",
          "model: labels swapped", "base: of a hub", "base: elsewhere", "settings are a link",
          "settings: an encoding that runs", "settings: keys that steer", "result is a pipe",
          "environment is a pipe", "a list of files elsewhere", "a manifest of files elsewhere",
          "a vocabulary planted")  # fmt: skip


def train(*words: str) -> int:
    import train

    return train.main(list(words))


def predict(*words: str) -> int:
    import predict

    return predict.main(list(words))


def start_on_base() -> int:
    return train("--config", "recipe.toml", "run.name=new", "--dry-run")


def start_on_run() -> int:
    return train(
        "--config", "recipe.toml", "run.name=new", "model.source=run:runs/one", "--dry-run"
    )


def ask() -> int:
    return predict("--run", "runs/one", "--json", "good film", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")


def ask_plainly() -> int:
    return predict("--run", "runs/one", "good film", "\rbad film")


def score() -> int:
    return train("--config", "recipe.toml", "--eval-only")


def resume() -> int:
    return train("--config", "recipe.toml", "run.name=two", "--resume")


def with_outside(harm: Harm) -> Harm:
    def both(place: Path) -> None:
        plant_outside(place)
        harm(place)

    return both


def trial(name: str, harm: Harm, action) -> Trial:
    return Trial(name, with_outside(harm), action, own=OWN, outside=("outside",))


def nothing(place: Path) -> None:
    pass


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def put_recipe(text: str) -> Harm:
    return lambda place: (
        (place / "hostile.toml").write_text(f"[run]\n{text}\n", encoding="utf-8") and None
    )


def cases() -> Iterator[Trial]:
    for name, harm in model_cases().items():
        yield trial(f"model folder: {name}", harm, start_on_base)
    for name, harm in run_cases().items():
        yield trial(f"run folder: {name}", harm, ask)
    for name in SOURCES:
        yield trial(f"source of a run: {name}", run_cases()[name], start_on_run)
    for name in TESTED:
        yield trial(f"a run tested: {name}", run_cases()[name], score)
    yield trial("run folder, plainly", run_cases()["model: labels that overprint"], ask_plainly)
    for name, harm in finished_cases().items():
        yield trial(f"run folder: {name}", harm, ask)
        yield trial(f"a run tested: {name}", harm, score)
        if "model" in name:
            yield trial(f"source of a run: {name}", harm, start_on_run)
    for name, harm in resumed_cases().items():
        yield trial(f"a run resumed: {name}", harm, resume)
    for name, (harm, file) in table_cases().items():
        yield trial(
            f"table, guessed: {name}",
            harm,
            lambda f=file: train("--csv", f, "--dry-run", "run.dir=runs", *SMALL),
        )
        yield trial(
            f"table, asked about: {name}",
            harm,
            lambda f=file: predict("--run", "runs/one", "--file", f, "--output", "runs/out.jsonl"),
        )
    for name, text in RECIPES.items():
        yield trial(
            f"recipe: {name}",
            put_recipe(text),
            lambda: train(
                "--config", "hostile.toml", "data.source=reviews.csv", "--dry-run", *SMALL
            ),
        )
    for number, text in enumerate(FILTERS):
        yield trial(
            f"filter {number}",
            nothing,
            lambda t=text: train(
                "--config", "recipe.toml", "run.name=new", f"data.filter={t}", "--dry-run"
            ),
        )
    for number, text in enumerate(SPOKEN):
        yield trial(f"text {number}", nothing, lambda t=text: predict("--run", "runs/one", "--", t))
        yield trial(
            f"text in JSON {number}",
            nothing,
            lambda t=text: predict("--run", "runs/one", "--json", "--", t),
        )
        yield trial(
            f"name {number}", nothing, lambda t=text: predict("--run", f"runs/{t[:99]}", "x")
        )


def is_clean(text: str) -> bool:
    """Whether output steers nothing: tabs and line ends apart. No bar is drawn into a file, so no
    carriage return is one's."""
    plain = text.replace("\n", "").replace("\t", "")
    return plain.replace("\u200d", "").isprintable()


def holds(outcome: Outcome) -> bool:
    ended = outcome.code == 0 or outcome.refused
    pwned = any((outcome.place / name).exists() for name in ("pwned", "base/pwned"))
    return ended and not outcome.deeds and not pwned and is_clean(outcome.out + outcome.err)


def test_files_of_strangers_run_nothing_and_end_with_a_message(places, capsys):
    only = os.environ.get("OPENLOOP_ONLY", "")  # a part of a case's name, for whoever mends one
    trials, answered, slowest, failed = 0, 0, 0.0, []
    for outcome in run_trials((t for t in cases() if re.search(only, t.name)), places):
        trials, slowest = trials + 1, max(slowest, outcome.seconds)
        answered += outcome.code == 0
        if not holds(outcome):
            failed.append(outcome.describe())
            with capsys.disabled():
                print(f"\n{failed[-1]}", flush=True)
    with capsys.disabled():
        print(f"\nhostile files {trials - len(failed)}/{trials} ({answered} answered, the others "
              f"refused; the slowest took {slowest:.1f} s)")  # fmt: skip
    assert failed == []
