"""When all labels are known: their kind, the names and their order, the style of their numbers."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import datasets
import numpy as np

from data.labels.numbers import ENGLISH, NumberStyle, choose_style, is_number, is_plain
from data.labels.reader import THOUSANDS, WHOLE, Label, names_for_numbers, plain_form

Kind = Literal["single", "multi", "regression", "chat"]  # of chat there are no labels
Labels = dict[str, list[Label]]  # split -> the plain label of each row

MOST_NAMES = 100  # more distinct labels than this are more likely a wrong column
LOOKALIKES = str.maketrans(  # letters of other alphabets that look like Latin ones
    "аеорсухіјѕһԁɡАВЕКМНОРСТУХІЈЅαοιΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijshdgABEKMHOPCTYXIJSaoiABEZHIKMNOPTYX",
)


@dataclass(frozen=True)
class Spelling:
    """How a source writes its labels, which all of them together tell: the style of numbers, what
    stands for other names, and whether a list holds one 0 or 1 for each class (`hot`)."""

    style: NumberStyle = ENGLISH
    renamed: Mapping[str, str] = field(default_factory=dict)
    hot: bool = False


@dataclass(frozen=True)
class Settled:
    """What all labels together say. `notes`: what was decided that a reader should know."""

    kind: Kind
    names: tuple[str, ...]
    spelling: Spelling
    labels: Labels
    notes: list[str]


def settle(labels: Labels, kind: str, names: tuple[str, ...] | None, column: str) -> Settled:
    """Settle the labels of all splits; `names` are those of the config or of a hub set, `column`
    names the label column in errors.

    Raises ValueError where the labels do not go together, or not with `names`.
    """
    at = f"data.label {column}"
    notes: list[str] = []
    renamed: dict[str, str] = {}
    hot = False
    everything = [label for split in labels.values() for label in split]
    settled = settle_kind(everything, kind, names, at)
    if settled == "regression":
        try:
            style = choose_style(str(label) for label in everything)
        except ValueError as error:
            raise ValueError(f"{at}: {error}") from None
        if style != ENGLISH:
            notes.append(f"{at}: a comma begins the decimals of its numbers")
        return Settled(settled, (), Spelling(style), labels, notes)
    if settled == "single":
        spelled = {str(label) for label in everything}
        whole = {one: plain_form(one) for one in spelled if THOUSANDS.fullmatch(one)}
        if whole:
            renamed |= whole
            labels = {
                split: [_rename(one, whole) for one in rows] for split, rows in labels.items()
            }
            everything = [label for split in labels.values() for label in split]
    if settled == "multi" and (size := _multi_hot_size(everything)):
        names, hot = _names_of_places(size, names, at), True
        labels = {split: [_held(label, names) for label in rows] for split, rows in labels.items()}
        notes.append(f"{at}: each list holds one 0 or 1 for each of the classes {_shown(names)}")
    elif names_for_numbers(names) and names is not None:
        by_number, note = name_numbers(everything, names, at)
        notes += [note] if note else []
        renamed |= by_number
        labels = {
            split: [_rename(label, by_number) for label in rows] for split, rows in labels.items()
        }
    everything = [label for split in labels.values() for label in split]
    ordered = settle_names(everything, settled, names, at)
    for alike in alike_names(ordered):
        notes.append(f"WARNING: {at}: these labels look alike, and are different classes: {alike}")
    return Settled(settled, ordered, Spelling(ENGLISH, renamed, hot), labels, notes)


def settle_kind(labels: Sequence[Label], kind: str, names: tuple[str, ...] | None, at: str) -> Kind:
    """The kind that the labels have: lists are multi, numbers that are not all whole are a
    regression, anything else is single. `at` names the label column in errors."""
    lists = sum(isinstance(label, tuple) for label in labels)
    if lists not in (0, len(labels)):
        raise ValueError(
            f"{at}: {lists} of {len(labels)} rows hold a list of labels, others one; "
            'where brackets belong to a name, set data.kind = "single"'
        )
    if kind == "regression":
        return "regression"
    if lists:
        held = {name for label in labels for name in label}
        if kind == "auto" and not names and len(held) > MOST_NAMES:
            examples = ", ".join(repr(name[:30]) for name in sorted(held)[:3])
            raise ValueError(
                f"{at}: {len(held)} different labels in the lists of {len(labels)} rows "
                f"({examples}, …); is this the label column? For classes that are meant set "
                "data.kind = 'multi'"
            )
        return "multi"
    if kind == "single" or names:
        return "single"
    counts = Counter(str(label) for label in labels)
    if all(map(is_number, counts)) and not all(map(_is_whole, counts)):
        return "regression"
    if len(counts) > MOST_NAMES or (len(counts) == len(labels) and len(labels) >= 10):
        examples = ", ".join(repr(name[:30]) for name in list(counts)[:3])
        raise ValueError(
            f"{at}: {len(counts)} different labels in {len(labels)} rows ({examples}, …); is this "
            "the label column? For numbers to be predicted set data.kind = 'regression', for "
            "classes that are meant data.kind = 'single'"
        )
    return "single"


def _is_whole(text: str) -> bool:
    """Whether a number is written plainly and has no decimals but zeros."""
    return is_plain(text) and float(text).is_integer()


def settle_names(
    labels: Sequence[Label], kind: Kind, names: tuple[str, ...] | None, at: str
) -> tuple[str, ...]:
    """Label names in order: as given, else those of the data sorted (numbers by their value)."""
    if kind == "regression":
        return ()
    if names:
        return names
    held = {n for label in labels for n in (label if isinstance(label, tuple) else (str(label),))}
    if kind == "single" and len(held) < 2:
        raise ValueError(
            f"{at}: every row has the label {next(iter(held))!r}; expected at least two labels "
            "(does data.filter leave only one?)"
        )
    if not held:
        raise ValueError(f"{at}: no row holds any label")
    whole = all(WHOLE.fullmatch(name) for name in held)
    return tuple(sorted(held, key=lambda name: (int(name) if whole else 0, name)))


def name_numbers(
    labels: Sequence[Label], names: tuple[str, ...], at: str
) -> tuple[dict[str, str], str]:
    """(number -> name, a note about it) for names given to a column of whole numbers; both empty
    where it holds the names themselves.

    As many numbers as names are named in their order, whatever gaps there are. Fewer are counted
    from 0 or from 1, as fits, and from where they start where neither does. Raises ValueError where
    both fit, and where nothing does.
    """
    held = {n for label in labels for n in (label if isinstance(label, tuple) else (label,))}
    numbers = sorted(int(name) for name in held - set(names))
    if not numbers:
        return {}, ""
    if len(numbers) == len(names):
        by_number = dict(zip(map(str, numbers), names, strict=True))
    else:
        fitting = [s for s in (0, 1) if s <= numbers[0] and numbers[-1] - s < len(names)]
        starts = fitting or [numbers[0]]
        if len(starts) > 1 or numbers[-1] - starts[0] >= len(names):
            shown = ", ".join(map(str, numbers[:12])) + (", …" if len(numbers) > 12 else "")
            why = ", counted from 0 or from 1" if fitting else ""
            raise ValueError(
                f"data.labels: {len(names)} names ({_shown(names)}), and the column of {at} holds "
                f"the numbers {shown}{why}; give a name for each of these and no other, or leave "
                "rows out with data.filter"
            )
        by_number = {str(starts[0] + i): name for i, name in enumerate(names)}
    pairs = ", ".join(f"{number} = {name}" for number, name in list(by_number.items())[:12])
    return by_number, f"data.labels names the numbers of the column in order: {pairs}"


def _rename(label: Label, by_number: Mapping[str, str]) -> Label:
    if isinstance(label, tuple):
        return tuple(dict.fromkeys(by_number.get(name, name) for name in label))
    return by_number.get(label, label)


def _multi_hot_size(labels: Sequence[Label]) -> int:
    """The length of lists that hold one 0 or 1 a class, 0 where they are lists of classes.

    Lists of classes hold none twice; of three classes and more, each row has two alike, and of two
    that exclude each other both orders are met, which lists of both classes would not differ by.
    """
    sizes = {len(label) for label in labels}
    if len(sizes) != 1 or not all(set(label) <= {"0", "1"} for label in labels):
        return 0
    size = sizes.pop()
    told = any(len(set(label)) < size for label in labels) or (size > 1 and len(set(labels)) > 1)
    return size if told else 0


def _names_of_places(size: int, names: tuple[str, ...] | None, at: str) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(size)))
    if len(names) != size:
        raise ValueError(f"{at}: lists of {size} zeros and ones, and data.labels has {len(names)}")
    return names


def _held(label: Label, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name, on in zip(names, label, strict=True) if on == "1")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def alike_names(names: Sequence[str]) -> list[str]:
    """Groups of names that a reader would take for the same: they differ in case, in full or half
    width, in invisible characters, in blanks, hyphens and underscores, in accents, or hold letters
    of another alphabet that look the same."""
    groups: dict[str, list[str]] = {}
    for name in names:
        folded = unicodedata.normalize("NFKD", name).translate(LOOKALIKES).casefold()
        skeleton = "".join(
            c for c in folded
            if not c.isspace() and c not in "-_‐‑–"
            and (unicodedata.category(c) != "Mn" or c > "\u036f")  # Latin accents end there
            and unicodedata.category(c) != "Cf"
        )  # fmt: skip
        groups.setdefault(name if WHOLE.fullmatch(name) else skeleton, []).append(name)
    return [", ".join(map(repr, group)) for group in groups.values() if len(group) > 1]


def convert_label(
    label: Label, kind: Kind, index: Mapping[str, int], style: NumberStyle = ENGLISH
) -> int | float | list[float]:
    """What stands in the data set: a class index, a number, or one 0/1 a class."""
    if kind == "regression":
        number = style.parse(str(label))
        assert number is not None
        return number
    if kind == "multi":
        return [float(name in label) for name in index]
    return index[str(label)]


def convert_as_settled(
    label: Label, kind: Kind, index: Mapping[str, int], spelling: Spelling
) -> int | float | list[float]:
    """One more label of a source whose others are settled, as convert_label gives it; `index` holds
    the names in order. Raises ValueError for one that is none of them, or no such number."""
    if kind == "regression":
        if spelling.style.parse(str(label)) is None:
            raise ValueError(f"{label!r} is no number as the others are written")
        return convert_label(label, kind, index, spelling.style)
    if spelling.hot and len(label) == len(index) and set(label) <= {"0", "1"}:
        label = _held(label, tuple(index))
    label = _rename(label, spelling.renamed)
    for name in label if isinstance(label, tuple) else (label,):
        if name not in index:
            raise ValueError(f"{name[:60]!r} is none of {_shown(tuple(index))}")
    return convert_label(label, kind, index)


def convert_labels(settled: Settled) -> dict[str, list[Any]]:
    """What stands in the data set for each row of each split."""
    index, style = {name: i for i, name in enumerate(settled.names)}, settled.spelling.style
    return {
        split: [convert_label(label, settled.kind, index, style) for label in plain]
        for split, plain in settled.labels.items()
    }


def label_counts(
    dataset: datasets.Dataset, kind: Kind, label_names: tuple[str, ...]
) -> dict[str, int]:
    """Rows of each label (multi: rows that hold it; regression: nothing to count)."""
    if kind == "regression":
        return {}
    counts = [0] * len(label_names)
    for chunk in dataset.select_columns(["label"]).with_format(None).iter(batch_size=10_000):
        for label in chunk["label"]:
            for i in [label] if kind == "single" else [i for i, on in enumerate(label) if on]:
                counts[i] += 1
    return dict(zip(label_names, counts, strict=True))


def label_array(dataset: datasets.Dataset, kind: Kind) -> np.ndarray:
    """The labels of a prepared split: (N,) int64 class indices, (N, C) of 0 and 1, or (N,) float64
    numbers, to their last digit."""
    column = dataset.select_columns(["label"]).with_format("numpy", dtype=np.float64)
    labels: np.ndarray = column["label"][:]
    return labels.astype(np.int64) if kind == "single" else labels
