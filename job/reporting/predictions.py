"""test_predictions.jsonl, read: what a run answered to each test row. Nothing here loads torch."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files.read import parse_json
from report.format import format_number

MOST_SHARES = 50  # probabilities that a line keeps: of more classes the likeliest
NEEDED = ("row", "text", "label", "predicted", "probabilities")


@dataclass(frozen=True)
class Line:
    """A test row as test_predictions.jsonl has it. `label` and `predicted` are a class, a list of
    classes in one order, or a number; `answer` is the latter as the file words it. `shares` are the
    probabilities by label; of more than 50 classes the 50 likeliest. `tokens`: of the whole text,
    None where it is not known."""

    address: str
    text: str  # of a pair both
    label: Any
    predicted: Any
    shares: dict[str, float]
    tokens: int | None
    answer: str = ""
    place: int = 0  # in the file, in bytes

    @property
    def right(self) -> bool:
        return bool(self.label == self.predicted)

    @property
    def has_numbers(self) -> bool:
        """Whether the model gave the row finite numbers."""
        return all(map(math.isfinite, self.shares.values()))

    @property
    def sure(self) -> float:
        """The share of the answer, for one class a row."""
        return self.shares[self.predicted]


def read_lines(path: Path, torn: bool = False) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(its place in bytes, its name, the object) for each line of a file of JSON lines; none where
    there is no file. With `torn` a last line that a killed process left half written is no line.
    Raises ValueError, naming the line, where one is no object."""
    if not path.is_file():
        return
    place = 0
    with path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            if torn and not content.endswith(b"\n"):
                return
            name = f"{path}, line {number}"
            value = parse_json(content, name)
            if not isinstance(value, dict):
                raise ValueError(f"{name}, is no object")
            yield place, name, value
            place += len(content)


def read_predictions(path: Path, texts: bool = True) -> Iterator[Line]:
    """The lines of a test_predictions.jsonl; without `texts` they have none, and text_at() reads
    those that are wanted: a million texts are gigabytes. Raises ValueError, naming the line, where
    one is no prediction."""
    for place, name, values in read_lines(path):
        if not values.keys() >= set(NEEDED):
            raise ValueError(f"{name}, is no prediction")
        yield to_line(values, place, texts)


def text_at(path: Path, line: Line) -> str:
    """The text of a line that was read without it."""
    with path.open("rb") as file:
        file.seek(line.place)
        return text_of(parse_json(file.readline(), f"{path}, byte {line.place}"))


def text_of(values: dict[str, Any]) -> str:
    """The text; of a pair both."""
    return " | ".join(filter(None, (values["text"], values.get("text_pair"))))


def name_of(label: Any) -> str:
    """A label as a person reads it."""
    if isinstance(label, list):
        return ", ".join(label) or "none"
    return label if isinstance(label, str) else format_number(label)


def to_line(values: dict[str, Any], place: int, texts: bool) -> Line:
    """A line from its values. Names of classes are held once, not once a line."""
    label, predicted = values["label"], values["predicted"]
    shares = {
        sys.intern(name): math.nan if share is None else share  # JSON has no NaN
        for name, share in values["probabilities"].items()
    }
    answer = predicted
    if isinstance(label, list):
        above = [name for name, share in shares.items() if share > 0.5]
        label, predicted = sorted(label), sorted(values.get("predicted_labels", above))
    elif isinstance(label, str):
        label, predicted = sys.intern(label), sys.intern(predicted)
    else:
        predicted = shares["value"]
    text = text_of(values) if texts else ""
    return Line(values["row"], text, label, predicted, shares, values.get("tokens"), answer, place)
