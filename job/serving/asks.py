"""What is asked of a run on labels: the bodies of /predict and /explain, read strictly."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from job.predicting.naming import Text
from job.serving.errors import Refused, as_json, wrong_input

BATCH = (
    'expected "text", a pair ["first", "second"], or a batch [["text"], ["text"], …] of texts or '
    "of pairs"
)


@dataclass(frozen=True)
class Ask:
    """Texts, and what is to be said of them. `batch`: the answer is a list of lists. `cut`: whether
    a text longer than is read may lose some. `partial`: what is no text spoils the others' answers
    not; what is not even a string stands among the texts as its Refused. `explain`: which words
    decided, for this `label` or for the one answered."""

    texts: list[Text | Refused]
    batch: bool = False
    raw: bool = False
    cut: bool = True
    top: int | None = None
    partial: bool = False
    explain: bool = False
    label: str | None = None


def read_predict(body: Any, pairs: bool, side: str | None, most: int) -> Ask:
    """The body of /predict, as text-embeddings-inference reads it, and our two additions. `pairs`:
    whether the run is one on pairs; `side` of a text loses what is too much, "right" or "left";
    `most` texts are taken at once. Raises Refused."""
    names = ("inputs", "raw_scores", "truncate", "truncation_direction", "top_k", "partial")
    values = read_fields(body, names)
    partial = read_flag(values, "partial", False)
    texts, batch = read_inputs(values, pairs, most, partial)
    top = values.get("top_k")
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise wrong_input(f"top_k is {as_json(top)}; expected a whole number, 1 or more", "top_k")
    wanted = values.get("truncation_direction")
    if wanted is not None and str(wanted).lower() != side:
        own = f"was trained with {as_json(side)}"
        known = "reads texts in another way" if side is None else own
        raise wrong_input(
            f"truncation_direction is {as_json(wanted)}, and this run {known}; leave it out",
            "truncation_direction",
        )
    return Ask(
        texts, batch, raw=read_flag(values, "raw_scores", False),
        cut=read_flag(values, "truncate", True), top=top, partial=partial,
    )  # fmt: skip


def read_explain(body: Any, pairs: bool) -> Ask:
    """The body of /explain: one text, and the label that is explained. Raises Refused."""
    values = read_fields(body, ("inputs", "label"))
    texts, batch = read_inputs(values, pairs, 1)
    label = values.get("label")
    if batch:
        raise wrong_input('inputs: one text at a time is explained; expected "text"', "inputs")
    if label is not None and not isinstance(label, str):
        raise wrong_input(f"label is {as_json(label)}; expected the name of one", "label")
    return Ask(texts, explain=True, label=label)


def read_fields(body: Any, names: Collection[str]) -> Mapping[str, Any]:
    """The fields of an object. What is null or empty may have any name: clients send such."""
    if not isinstance(body, Mapping):
        raise wrong_input(f'the body is {as_json(body)}; expected an object: {{"inputs": "text"}}')
    for name, value in body.items():
        if name not in names and value not in (None, "", [], {}):
            known = ", ".join(names)
            raise wrong_input(f"there is no field {name!r:.60}; there are {known}", name[:60])
    return body


def read_flag(values: Mapping[str, Any], name: str, default: bool) -> bool:
    """A field that is true or false."""
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong_input(f"{name} is {as_json(value)}; expected true or false", name)
    return default if value is None else value


def read_inputs(
    values: Mapping[str, Any], pairs: bool, most: int, partial: bool = False
) -> tuple[list[Text | Refused], bool]:
    """(texts or pairs, whether they are a batch). A list of strings is one text or one pair, as
    text-embeddings-inference has it: a batch is a list of lists. With `partial` an item of a batch
    that is none is why, and raises nothing."""
    if "inputs" not in values:
        raise wrong_input(f"the field inputs is missing; {BATCH}", "inputs")
    inputs = values["inputs"]
    if isinstance(inputs, str):
        return [read_item([inputs], pairs, "inputs")], False
    if not isinstance(inputs, list):
        raise wrong_input(f"inputs is {as_json(inputs)}; {BATCH}", "inputs")
    if not inputs:
        raise Refused(400, "empty", "inputs is empty; give at least one text", param="inputs")
    if not any(isinstance(item, list) for item in inputs):
        if not pairs and len(inputs) > 1 and are_strings(inputs):
            raise wrong_input(
                f"inputs is a list of {len(inputs)} strings, and this run reads single texts; a "
                'batch of them is a list of lists: [["first text"], ["second text"], …]', "inputs",
            )  # fmt: skip
        return [read_item(inputs, pairs, "inputs")], False
    if len(inputs) > most:
        raise Refused(
            413, "validation",
            f"inputs has {len(inputs)} items; at most {most} are taken at once: send several "
            "requests", param="inputs",
        )  # fmt: skip
    if partial:
        return [try_item(item, pairs) for item in inputs], True
    return [read_item(item, pairs, f"inputs: item {i}") for i, item in enumerate(inputs)], True


def try_item(item: Any, pairs: bool) -> Text | Refused:
    """One text, or one pair, or why it is none."""
    try:
        return read_item(item, pairs, "this item")
    except Refused as refusal:
        return refusal


def read_item(item: Any, pairs: bool, place: str) -> Text:
    """One text, or one pair. Raises Refused for anything else, and for another number of strings;
    `place` says where it stands."""
    wanted = 'pairs of texts: ["first", "second"]' if pairs else 'single texts: ["text"]'
    strings = [item] if isinstance(item, str) else item
    if not are_strings(strings):
        reason = f"{place} is {as_json(item)}; this run reads {wanted}"
    elif len(strings) != 1 + pairs:
        count = "1 string" if len(strings) == 1 else f"{len(strings)} strings"
        reason = f"{place} has {count}; this run reads {wanted}"
    else:
        return (strings[0], strings[1]) if pairs else strings[0]
    raise wrong_input(reason, "inputs")


def are_strings(value: Any) -> bool:
    """Whether this is a list of strings."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
