"""What is plainly off with a run, each in one line that names the setting to change.

A healthy run has none. Each line is about something that its figures show beyond chance: a user who
looks at one number cannot see it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from report.format import format_count, format_number, format_share, join_names, shorten

FEW_ROWS = 100  # below, the 95 % interval of an accuracy is wider than ±8 points
MOVED = 0.02  # share by which a loss has to fall to have moved
RISEN = 1.5  # times its start to which a training loss has to rise to have diverged
WORSE = 1.25  # times its lowest to which a validation loss has to rise
FALLEN = 0.01  # by which the deciding figure has to fall with it
FEW_STEPS = 9  # below, a loss shows no course
SURE = 2.0  # standard errors
SLIGHT = 0.02  # r2 from which a regression has learned something, whatever its interval
SEEN = 5  # test rows of a class from which it is telling that none was predicted


@dataclass(frozen=True)
class Settings:
    """The settings that the lines name, as they are."""

    lr: float
    usual_lr: float  # for what this run trains
    epochs: int
    max_steps: int | None  # where it ends the run before its epochs are through
    class_weights: bool
    stops_early: bool  # whether eval.patience is set
    max_length: int
    most_length: int  # tokens that the model can read
    long: str = "cut"  # what becomes of longer texts


@dataclass(frozen=True)
class Evaluation:
    """One look at the validation rows; of `figure`, the deciding metric, more is better."""

    step: int
    loss: float
    figure: float


@dataclass(frozen=True)
class ClassCount:
    """Test rows that have a class, those that are given it, and those that both holds for."""

    name: str
    rows: int
    predicted: int
    hits: int


@dataclass(frozen=True)
class Evidence:
    """What a finished run shows."""

    settings: Settings
    losses: Sequence[float]  # of training, in the order of the steps
    evaluations: Sequence[Evaluation]
    steps_per_epoch: int
    test_rows: int
    constant: str  # what stands for no learning: "the commonest class (pos)"
    above_constant: tuple[float, float, float]  # the test figure, less that of no learning
    r2: float | None  # regression only
    classes: Sequence[ClassCount]
    tokens: int  # of training, before the cut
    cut_tokens: int


def verdict_lines(evidence: Evidence) -> list[str]:
    """The lines, the one that explains others first and without those that it explains."""
    training = _training(evidence)
    lines = [
        training,
        "" if training else _unlearned(evidence) or _never_predicted(evidence),
        "" if training else _getting_worse(evidence),
        few_rows("test", evidence.test_rows),
        _cut(evidence),
    ]
    return [line for line in lines if line]


def _has_learned(evidence: Evidence) -> bool:
    """Whether the test figure is beyond chance better than an answer that is always the same; of
    weighed classes, which cost accuracy, whether they are told apart."""
    if evidence.above_constant[1] > 0:
        return True
    return evidence.settings.class_weights and _tells_apart(evidence)


def _tells_apart(evidence: Evidence) -> bool:
    """Whether rows of a class are given it oftener than other rows are: Youden's J (1950), its mean
    over the classes, against its standard error. An answer that is always the same has 0."""
    gaps, errors = [], []
    for one in evidence.classes:
        others = evidence.test_rows - one.rows
        if one.rows and others:
            right, wrong = one.hits / one.rows, (one.predicted - one.hits) / others
            gaps.append(right - wrong)
            chance = right * (1 - right) / one.rows + wrong * (1 - wrong) / others
            errors.append(math.sqrt(chance))
    return bool(gaps) and fmean(gaps) > SURE * fmean(errors)


def few_rows(split: str, rows: int) -> str:
    """The line for a split that is too small to judge by, else nothing."""
    if rows >= FEW_ROWS:
        return ""
    return (
        f"{split} has only {rows} rows, and a figure from so few says little: bring more "
        f"of them, or raise data.{split} where they are cut from train"
    )


def no_numbers(addresses: Sequence[str], rows: int, dtype: str) -> str:
    """The line for test rows, by their addresses, whose logits are NaN or infinite."""
    way_out = 'set precision.dtype = "fp32"' if dtype != "fp32" else "lower train.lr"
    return (
        f"{format_count(len(addresses))} of {format_count(rows)} test rows get no numbers (NaN or "
        f"infinite) from the model, the first {addresses[0]}: their answers mean nothing, and "
        f"calibration leaves them out: {way_out}"
    )


@dataclass(frozen=True)
class Course:
    """Means of neighbouring training losses, over tenths of a run or thirds of a short one."""

    first: float
    lowest: float
    last: float
    chance: float  # what it makes of the difference of two of them


def _measure_course(losses: Sequence[float]) -> Course:
    size = max(len(losses) // 10, min(len(losses) // 3, 10))
    first, last = losses[:size], losses[-size:]
    means = [fmean(losses[i : i + size]) for i in range(0, len(losses) - size + 1, size)]
    error = math.sqrt((variance(first) + variance(last)) / size)
    return Course(fmean(first), min(means), fmean(last), SURE * error)


def _training(evidence: Evidence) -> str:
    if len(evidence.losses) < FEW_STEPS:
        return ""
    course = _measure_course(evidence.losses)
    diverged = _diverged(course, evidence.settings)
    return diverged or ("" if _has_learned(evidence) else _never_moved(course, evidence))


def _diverged(course: Course, settings: Settings) -> str:
    first, lowest, last, chance = course.first, course.lowest, course.last, course.chance
    if last >= RISEN * first and last - first > chance:
        start = f"from {format_number(first)} at the start"
    elif last >= 0.9 * first and last > 2 * lowest and last - lowest > 2 * chance:
        start = f"from {format_number(lowest)}, to which it had fallen,"
    else:
        return ""
    rate = settings.usual_lr if settings.lr > settings.usual_lr else settings.lr / 10
    return (
        f"the training loss diverged, {start} to {format_number(last)} at the end: lower train.lr "
        f"({settings.lr:g}) to {rate:g}"
    )


def _never_moved(course: Course, evidence: Evidence) -> str:
    first, last, chance = course.first, course.last, course.chance
    looks = [look.loss for look in evidence.evaluations]  # always of the same rows
    if len(looks) > 1:
        chance = min(chance, first / 3)
        if max(looks) - min(looks) > MOVED * max(looks):
            return ""
    else:
        chance = min(chance, first / 10)
    if first - last > max(MOVED * first, chance):
        return ""
    settings = evidence.settings
    line = f"the training loss never moved: {format_number(first)} at the start and "
    line += f"{format_number(last)} at the end"
    if settings.lr < settings.usual_lr:
        return f"{line}: raise train.lr ({settings.lr:g}) to {settings.usual_lr:g}"
    if settings.lr > settings.usual_lr:
        return f"{line}: lower train.lr ({settings.lr:g}) to {settings.usual_lr:g}"
    return f"{line}: does data.label follow from data.text at all? Else {_train_longer(settings)}"


def _unlearned(evidence: Evidence) -> str:
    """No better than an answer that is always the same. Of few rows only where it is not even
    better by the figure itself: their interval is wide."""
    below = evidence.r2 is not None and evidence.r2 < 0
    if _has_learned(evidence) and not below:
        return ""
    estimate = evidence.above_constant[0]
    if estimate > 0 and evidence.test_rows < FEW_ROWS and not below:
        return ""
    way_out = _learn_more(evidence.settings)
    if evidence.r2 is not None:
        if evidence.r2 >= SLIGHT:
            return ""
        r2 = f"{evidence.r2:.3f}" if evidence.r2 >= 0 else f"below 0 ({evidence.r2:.3f})"
        # r2 is beside the mean of the test rows, the constant answer that of the training rows
        than = evidence.constant if estimate <= 0 or not below else "the mean of the test rows"
        word = "worse" if below else "no better"
        return f"r2 is {r2}: {word} than always saying {than}: {way_out}"
    predicted = [one.name for one in evidence.classes if one.predicted]
    if len(predicted) == 1 and len(evidence.classes) > 1:
        rarest = min(evidence.classes, key=lambda one: one.rows)
        return (
            f"no better than always saying {evidence.constant}: every test row is given "
            f"{shorten(predicted[0], 40)!r}: {_weigh_or(way_out, rarest, evidence)}"
        )
    return f"no better than always saying {evidence.constant}: {way_out}"


def _learn_more(settings: Settings) -> str:
    if settings.lr < settings.usual_lr / 3:
        return f"raise train.lr ({settings.lr:g}) to {settings.usual_lr:g}"
    return _train_longer(settings)


def _train_longer(settings: Settings) -> str:
    name, value = "epochs", settings.epochs
    if settings.max_steps is not None:
        name, value = "max_steps", settings.max_steps
    return f"raise train.{name} ({value}) to {3 * value}, or bring more rows"


def _weigh_or(other: str, one: ClassCount, evidence: Evidence) -> str:
    """To weigh the classes where one of them has less than half of the rows that it had among
    equals, unless they are weighed already; else the other way out."""
    rare = 2 * one.rows * len(evidence.classes) < sum(each.rows for each in evidence.classes)
    if not rare or evidence.settings.class_weights:
        return other
    return 'set train.class_weights = "balanced"'


def _never_predicted(evidence: Evidence) -> str:
    never = [one for one in evidence.classes if one.rows >= SEEN and one.predicted == 0]
    if not never:
        return ""
    names = join_names([f"{one.name} ({format_count(one.rows)} test rows)" for one in never], 5)
    way_out = _weigh_or(_train_longer(evidence.settings), never[0], evidence)
    return f"never predicted: {names}: {way_out}"


def _getting_worse(evidence: Evidence) -> str:
    """Two evaluations or more after the lowest loss, which has risen since, and the deciding figure
    has fallen with it: as long as that holds, a model that is surer of itself does no harm."""
    looks = evidence.evaluations
    if len(looks) < 3 or evidence.settings.stops_early:
        return ""
    place = min(range(len(looks)), key=lambda i: looks[i].loss)
    lowest, last = looks[place], looks[-1]
    rising = last.loss >= max(look.loss for look in looks[place:])
    if len(looks) - place < 3 or not rising or last.loss < WORSE * lowest.loss:
        return ""
    least = FALLEN * (1 if lowest.figure > 0 else -lowest.figure)  # of an error, a share of it
    if lowest.figure - last.figure < least:
        return ""
    epochs = max(1, round(lowest.step / max(1, evidence.steps_per_epoch)))
    way_out = "eval.patience = 2"
    if evidence.settings.max_steps is not None:
        way_out = f"train.max_steps = {lowest.step}"
    elif epochs < evidence.settings.epochs:
        way_out = f"train.epochs = {epochs}"
    return (
        f"validation has been getting worse since step {format_count(lowest.step)} (loss "
        f"{format_number(lowest.loss)}, at the end {format_number(last.loss)}): set {way_out}; "
        "the best weights are kept either way"
    )


def _cut(evidence: Evidence) -> str:
    if 2 * evidence.cut_tokens < evidence.tokens or not evidence.cut_tokens:
        return ""
    settings = evidence.settings
    longer = min(settings.most_length, 4 * settings.max_length)
    share = format_share(evidence.cut_tokens, evidence.tokens)
    line = f"{share} of the training tokens are cut off"
    if settings.long == "chunks":
        return f"{line}: raise data.max_windows"
    if longer > settings.max_length:
        return f"{line}: raise data.max_length ({settings.max_length}) to {longer}"
    return (
        f"{line}, and data.max_length is at the model's most ({settings.max_length}): "
        'data.truncation = "left" keeps the ends, data.long = "head_tail" both, "chunks" reads all'
    )
