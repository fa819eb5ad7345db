"""The teacher of a run: a trained classifier, opened with its own tokenizer, lengths and labels.

It is a finished run, or any model that transformers knows as a classifier. What differs from the
student is its own affair, but for what its answers mean: the labels must be the same.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from configs.schema import Config
from data.prepare import Data
from engine.decision import Decision
from engine.precision import Precision, choose_precision
from files.verify import sha256
from job.ending import reading
from job.folder import Folder, check_finished, finished_config, run_folder
from job.predicting.predictor import Predictor, make_predictor, recorded_dtype
from job.reporting.train_on import can_train_on
from job.speed import speed_up_model
from job.training.bag import settle_precision
from job.training.loss import target_of
from job.verify import check_run
from models.args import ModelArgs
from models.build import build_model
from models.export import load_exported
from models.load import hash_weights, load_tokenizer, read_config, resolve_source
from models.ngrams.bag import NgramTokenizer
from models.ngrams.fusion import load_fusion
from models.verified import RECORD
from report.format import join_names

PROBLEMS = {
    "single_label_classification": "single", "multi_label_classification": "multi",
    "regression": "regression",
}  # fmt: skip
CUT = ("source", "splits", "filter", "text", "label", "clean", "validation", "test", "split_seed")


@dataclass(frozen=True)
class Teacher:
    """An opened teacher. `order` (C,): the place among its own answers of each of the run's labels;
    `sha256` is a hash of all that its model is; `speed` names the fast paths that run."""

    predictor: Predictor
    order: list[int]
    sha256: str
    speed: dict[str, str]
    notes: list[str]


def find_run(config: Config) -> Folder | None:
    """The run that distill.teacher names, by its folder, by its name beside this run's, or by the
    folder of its model; None for a model from elsewhere. Raises ValueError where nothing of that
    name is there, where the run is not finished, and where it is this run itself."""
    assert config.distill is not None
    name, runs = config.distill.teacher, Path(config.run.dir).expanduser()
    if name.startswith(("hub:", "package:")):
        return None
    path = Path(name.removeprefix("run:")).expanduser()
    places = [path, runs / path]
    models = [place.resolve() for place in places if (place / RECORD).is_file()]
    places += [model.parent for model in models if model == Folder(model.parent).model]
    there = next((place for place in places if Folder(place).config.exists()), None)
    if there is None and path.is_dir() and not name.startswith("run:"):
        return None
    own = run_folder(config).path
    if own.resolve() in [place.resolve() for place in (places if there is None else [there])]:
        raise ValueError(
            f"distill.teacher is {name!r}, which is this run itself ({own}); a teacher is another "
            "run: give this one a name of its own (run.name=…)"
        )
    if there is not None:
        check_finished(Folder(there))
        return Folder(there)
    known = sorted(result.parent.name for result in runs.glob("*/result.json"))
    raise ValueError(
        f"distill.teacher is {name!r}, and there is no run and no folder of that name; finished "
        f"runs in {runs}: {join_names(known) or 'none'}. Train the teacher first, as a run of its "
        "own without [distill]"
    )


def student_source(config: Config) -> tuple[str, str | None, int]:
    """(source, revision, every): what the model of a run starts from, and which layers of it: those
    of model.source, or every Nth of the teacher's."""
    distill = config.distill
    if distill is None or distill.student in (None, "ngrams"):
        return config.model.source, config.model.revision, 1
    run = find_run(config)
    if run is not None and not can_train_on(finished_config(run)):
        raise ValueError(
            f'distill.student is "{distill.student}", and what {distill.teacher} learned beside '
            "its layers ([adapter], [prompt] or [prefix]) cannot be merged into them. Take a "
            "student of its own (--unset distill.student, model.source=…) or distill.student = "
            '"ngrams", or a teacher that was trained with [lora] or whole'
        )
    source = distill.teacher if run is None else f"run:{run.path}"
    return source, None, int(distill.student.removeprefix("layers:"))


def teacher_folder(config: Config) -> Path:
    """The folder of the teacher's model."""
    assert config.distill is not None
    run = find_run(config)
    return Path(resolve_source(config.distill.teacher)) if run is None else run.model


def teacher_precision(config: Config, resumed: bool) -> Precision:
    """Where the teacher of a bag of n-grams answers: that is trained on the CPU, and the teacher
    takes a GPU all the same. A `resumed` run takes the dtype that it began with."""
    then = recorded_dtype(run_folder(config), "teacher.dtype") if resumed else None
    return choose_precision(config.precision.device, "auto", then)


def open_teacher(
    config: Config, kind: str, names: tuple[str, ...], precision: Precision, allow_code: bool,
    answers: bool = False,
) -> Teacher:  # fmt: skip
    """The teacher of a run with labels of this kind and these names; one that is a bag of n-grams
    itself answers where those are quick. `answers` as in speed_up_model.

    Raises ValueError where there is none, where it has no trained classifier, and where it answers
    something else.
    """
    assert config.distill is not None
    run = find_run(config)
    with torch.random.fork_rng(devices=[]), reading(f"the teacher {config.distill.teacher}"):
        if run is None:
            home = teacher_folder(config)
            model, tokenizer, args, digest = open_model(config, kind, home, allow_code)
            own, notes = within(config, tokenizer.model_max_length), []
            if (home / RECORD).is_file():
                notes.append("teacher: its run is not there; it reads texts as this one does")
            if config.data.long == "chunks":
                notes.append("teacher: texts are cut for it")
        else:
            notes, own = check_run(run, allow_drift=False), finished_config(run)
            home = run.model
            model, tokenizer, args = load_exported(home, allow_code, verified=True)
            digest = sha256(home / RECORD)  # which lists all else by its hash
            notes += seen_before(config, own)
        fusion = load_fusion(home, args.num_labels)
    order, more = match_labels(config.distill.teacher, args, kind, names)
    if isinstance(tokenizer, NgramTokenizer):
        precision = settle_precision(config.precision.device, "auto", tokenizer)
    model.to(precision.device).eval()
    speed = speed_up_model(model, reads_all(config), precision, answers=answers)
    predictor = make_predictor(
        own, model, tokenizer, Decision(args.kind, target=target_of(args)), args.label_names,
        precision, fusion,
    )  # fmt: skip
    return Teacher(predictor, order, digest, speed.resolved, notes + more)


def open_model(
    config: Config, kind: str, folder: Path, allow_code: bool
) -> tuple[Any, Any, ModelArgs, str]:
    """(model, tokenizer, arguments, hash) of a teacher in `folder` that is no run. Raises
    ValueError where it is no trained classifier."""
    assert config.distill is not None
    name = config.distill.teacher
    if (folder / RECORD).is_file():
        return *load_exported(folder, allow_code), sha256(folder / RECORD)
    about: Any = read_config(str(folder))
    tokenizer = load_tokenizer(name)
    args = ModelArgs(
        source=name,
        num_labels=about.num_labels,
        label_names=tuple(about.id2label[i] for i in range(about.num_labels)),
        kind=PROBLEMS.get(str(about.problem_type), kind),
    )
    built = build_model(args, tokenizer, seed=0)
    if built.initialised:
        raise ValueError(
            f"distill.teacher {name!r} has no trained classifier: its weights lack "
            f"{', '.join(built.initialised[:4])}. A teacher is a finished run (runs/NAME) or a "
            "model fine-tuned for these labels; train one first, with --unset distill"
        )
    return built.model, tokenizer, args, hash_weights(folder)


def within(config: Config, positions: int) -> Config:
    """The run's own settings, its length within the positions of another model, which takes no
    windows: a text that is read in them is cut for it."""
    data = config.data
    long = "cut" if data.long == "chunks" else data.long
    shorter = data.model_copy(update={"max_length": min(data.max_length, positions), "long": long})
    return config.model_copy(update={"data": shorter})


def reads_all(config: Config) -> Config:
    """The settings with which a model works out what is read of it: where states are matched, all
    tokens in the last layer too."""
    if config.distill is None or not config.distill.hidden:
        return config
    return config.model_copy(
        update={"speed": config.speed.model_copy(update={"last_layer": False})}
    )


def match_labels(
    name: str, args: ModelArgs, kind: str, names: tuple[str, ...]
) -> tuple[list[int], list[str]]:
    """The place among the teacher's answers of each of these labels, and a note where it had to be
    guessed. Raises ValueError where the two do not answer the same."""
    if args.kind != kind:
        raise ValueError(
            f"distill.teacher {name!r} answers {args.kind!r} labels, and the rows hold {kind!r}; "
            "both must be of one kind"
        )
    if kind == "regression":
        return [0], []
    own = args.label_names
    if len(own) == len(names) and all(re.fullmatch(r"LABEL_\d+", label) for label in own):
        return list(range(len(names))), [
            f"teacher: its labels have no names; taken in the order {join_names(list(names))}"
        ]
    if sorted(own) != sorted(names):
        raise ValueError(
            f"distill.teacher {name!r} has other labels than the rows: {join_names(list(own))} "
            f"there, {join_names(list(names))} here; train it on these, or name the classes of "
            "the rows as it does (data.labels)"
        )
    return [own.index(label) for label in names], []


def seen_before(config: Config, own: Config) -> list[str]:
    """A warning where the teacher's rows were cut otherwise, so that it may have been trained on
    test rows of this run."""
    differ = [f"data.{n}" for n in CUT if getattr(config.data, n) != getattr(own.data, n)]
    if not differ:
        return []
    return [
        f"WARNING: the teacher's rows were cut by another {join_names(differ)}; where they are of "
        "the same source it may have learnt this run's validation and test rows by heart, and both "
        "figures would be too good"
    ]


def check_pairs(config: Config, data: Data, teacher: Teacher) -> None:
    """Raise ValueError where one reads pairs of texts and the other does not."""
    pairs = "text_pair" in data.splits["train"].column_names
    if pairs != teacher.predictor.pairs:
        assert config.distill is not None
        words = {True: "pairs of texts", False: "single texts"}
        raise ValueError(
            f"distill.teacher {config.distill.teacher!r} reads {words[teacher.predictor.pairs]}, "
            f"and the rows hold {words[pairs]}"
        )
