"""While rows are read: each label is brought to one plain form, a name or a tuple of names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from data.labels.numbers import is_number, is_plain
from data.reading.rows import is_encodable, nearest

Label = str | tuple[str, ...]  # one class, or a number as text | the classes that hold

SPELLED_WHOLE = re.compile(r"([+-]?)0*([0-9]{1,18})(?:\.0{0,18})?")
WHOLE = re.compile(r"-?[0-9]{1,18}")
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}\.000")  # or a whole number with its decimals
ON = {"1", "true", "yes", "y", "t"}
OFF = {"0", "false", "no", "n", "f"}
# What programs write where there is no value. "none" in small letters is a word that people choose.
MISSING = {
    "-", "--", "#N/A", "<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null",
    "\\N", "Nan", "Null", "NAN", "n.a.", "N.A.", "nil", "(null)", "#n/a", "---",
}  # fmt: skip
MOST_KNOWN = 10_000  # cells whose plain label is kept
ITEM = re.compile(  # in quotes or not, up to the comma, the next quote or the end
    r"""(?:'((?:[^'\\]|\\.)*+)'|"((?:[^"\\]|\\.)*+)"|([^\s,\[\]'"][^,\[\]'"]*+))"""
    r"""\s*+(?:,\s*+|(?=['"])|$)"""
)
OBJECT = ("[{", "{'", '{"')  # how an object in a cell begins
ESCAPED = re.compile(r"\\(.)", re.S)
LONGEST_ITEM = 200  # characters; what is longer, in brackets, is prose


class RowError(ValueError):
    """A row that cannot be used: `reason` is what it is counted under, `column` where the fault is,
    `value` what stands there in the place of a value."""

    def __init__(self, reason: str, column: str, message: str, value: Any = "") -> None:
        super().__init__(f"{column}: {message}")
        self.reason, self.column, self.value = reason, column, value


def plain_form(value: Any, clean: Callable[[str], str] = str.strip) -> str:
    """The plain form of one label: 1, 1.0, "01" and " 1" are all "1"; true is "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    text = clean(value) if isinstance(value, str) else str(value)
    if (match := SPELLED_WHOLE.fullmatch(text)) is None:
        return text
    sign, digits = match.groups()
    return "-" + digits if sign == "-" and digits != "0" else digits


def names_for_numbers(names: tuple[str, ...] | None) -> bool:
    """Whether names may stand for numbered classes: none of them is a number itself."""
    return bool(names) and not any(WHOLE.fullmatch(plain_form(name)) for name in names or ())


def parse_list(text: str) -> list[str] | None:
    """The items of a list that was written into a cell, as Python, JSON, numpy or PostgreSQL print
    lists, tuples, sets and arrays; None where it is no list."""
    text = text.strip()
    if text[:1] + text[-1:] not in ("[]", "{}", "()") or len(text) < 2:
        return None
    inner, items, at = text[1:-1].strip(), [], 0
    if text[0] == "(" and inner[:1] not in ("'", '"'):
        return None  # (12.50) is a number, (good) a word
    while at < len(inner):
        match = ITEM.match(inner, at)
        if match is None or match.end() == at:
            return None
        quoted = match[1] if match[1] is not None else match[2]
        if quoted is not None:
            items.append(ESCAPED.sub(r"\1", quoted))
        elif len(match[3]) > LONGEST_ITEM or (text[0] == "{" and ":" in match[3]):
            return None  # prose, or an object with its fields
        elif is_plain(match[3].split()[0]):  # numpy puts blanks between numbers, and no comma
            items += match[3].split()
        else:
            items.append(match[3].strip())
        at = match.end()
    return items


@dataclass
class LabelReader:
    """Brings one row's label to its plain form; `class_names` are those of a hub set's column,
    `clean` what is done to a label that is text, `separator` what stands between several."""

    columns: tuple[str, ...]
    names: tuple[str, ...] | None
    kind: str
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    separator: str | None = None
    clean: Callable[[str], str] = str.strip

    def __post_init__(self) -> None:
        if len(self.columns) > 1 and self.kind not in ("auto", "multi"):
            raise ValueError(
                f"data.label: {len(self.columns)} columns make a multi-label set, and data.kind is "
                f"{self.kind!r}; expected 'multi' or 'auto'"
            )
        if len(self.columns) > 1 and self.names and len(self.names) != len(self.columns):
            raise ValueError(
                f"data.labels: {len(self.names)} names for {len(self.columns)} label columns"
            )
        if self.kind == "regression" and self.names:
            raise ValueError("data.labels: a regression has no label names")
        self.by_form = {plain_form(name, self.clean): name for name in self.names or ()}
        # Names for numbered classes; which number is which is settled when all are known.
        self.numbered = names_for_numbers(self.names)
        self.known: dict[str, Label] = {}  # of the cells met: labels repeat

    def read(self, values: Mapping[str, Any]) -> Label:
        """The plain label. Raises RowError where it is missing, malformed or outside the set."""
        if len(self.columns) > 1:
            names = self.names or self.columns
            held = [self._is_on(column, values[column]) for column in self.columns]
            return tuple(name for name, on in zip(names, held, strict=True) if on)
        value = values[self.columns[0]]
        if type(value) is not str:
            return self._read(self.columns[0], value)
        if value not in self.known:
            if len(self.known) >= MOST_KNOWN:
                self.known.clear()  # numbers, or free text
            self.known[value] = self._read(self.columns[0], value)
        return self.known[value]

    def _read(self, column: str, value: Any) -> Label:
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            raise RowError("no_label", column, "no label", value)
        if self.kind == "regression":
            return self._number(column, value)
        items = self._items(value)
        if items is None:
            if self.kind == "multi":
                raise RowError(
                    "bad_label",
                    column,
                    f"{value!r} is one label, and data.kind = 'multi' needs several: a "
                    "list of labels, several in a cell with data.label_separator between them, or "
                    "several label columns of 0 and 1",
                )
            return self._spelled(value) or self._class(column, value)
        if self.kind == "single":
            raise RowError("bad_label", column, "a list, and data.kind is 'single'")
        flags = [str(item).lower() for item in items]
        if {"true", "false"}.issuperset(flags) and self.by_form.keys().isdisjoint(flags):
            items = [int(flag == "true") for flag in flags]  # one a class, as 0 and 1
        labels = [self._class(column, item) for item in items]
        if set(labels) <= {"0", "1"}:
            return tuple(labels)  # perhaps one 0 or 1 a class, which all rows together tell
        return tuple(sorted(set(labels)))  # the same labels in any order are the same

    def _spelled(self, value: Any) -> str | None:
        """A label such as "1.000" as it stands: whether it is a class 1 or a thousand, the whole
        column tells. None for any other."""
        if self.kind != "auto" or self.names is not None or not isinstance(value, str):
            return None
        return text if THOUSANDS.fullmatch(text := value.strip()) else None

    def _items(self, value: Any) -> list[Any] | None:
        """The several labels of a value; None where it is one."""
        if isinstance(value, list | tuple):
            return list(value)
        if not isinstance(value, str) or self.kind == "single":
            return None
        if (items := parse_list(value)) is not None or self.separator is None:
            return items
        return [item for item in value.split(self.separator) if item.strip()]

    def _class(self, column: str, value: Any) -> str:
        if isinstance(value, dict):
            fields = ", ".join(map(str, value))
            texts = (name for name, inner in value.items() if isinstance(inner, str))
            raise RowError(
                "bad_label",
                column,
                f"an object with the fields {fields}; name the one that is the label: "
                f'data.label = "{column}.{next(texts, next(iter(value), "…"))}"',
            )
        if isinstance(value, str) and value.startswith(OBJECT) and value.endswith(("}", "}]")):
            raise RowError(
                "bad_label",
                column,
                f"objects written into a cell, {value[:40]!r}; write the names of the "
                'labels alone, as ["a", "b"]',
            )
        if value is None or isinstance(value, list | bytes) or value != value:
            raise RowError("bad_label", column, f"{value!r} is no label")
        known = self.class_names.get(column)
        if known and isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < len(known):  # hub sets mark rows without a label by -1
                raise RowError("no_label", column, f"no label ({value})", value)
            # Names given that are other than the set's own rename its numbers.
            renames = self.names is not None and set(self.names) != set(known)
            if not renames:
                value = known[value]
            elif self.numbered and self.names is not None and value < len(self.names):
                return self.names[value]
        name = plain_form(value, self.clean)
        if name in self.by_form:
            return self.by_form[name]
        if not is_encodable(name):
            raise RowError("bad_encoding", column, "a lone surrogate, which is no Unicode")
        if name in MISSING or not name:
            raise RowError(
                "no_label",
                column,
                f"{value!r} stands for a missing label; where it is a class, name all "
                f'classes: data.labels = ["{name}", …]',
                value,
            )
        if self.names is None or (self.numbered and WHOLE.fullmatch(name)):
            return name
        allowed = ", ".join(self.names[:10]) + (", …" if len(self.names) > 10 else "")
        near = nearest(name, self.names)
        raise RowError("label_outside", column, f"{name[:60]!r} is none of {allowed}{near}")

    @staticmethod
    def _is_on(column: str, value: Any) -> bool:
        name = "" if value is None else plain_form(value).lower()
        if name in ON or name in OFF:
            return name in ON
        raise RowError("bad_label", column, f"{value!r}, expected 0 or 1")

    def _number(self, column: str, value: Any) -> str:
        text = "" if isinstance(value, bool) else str(value).strip()
        if is_number(text):
            return text
        if text in MISSING:
            raise RowError("no_label", column, f"{value!r} stands for a missing number", value)
        raise RowError("bad_label", column, f"{value!r} is no finite number, for a regression")
