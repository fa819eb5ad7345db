"""What a run on labels is asked, text by text, and what it answers, as the clients of
text-embeddings-inference read it."""

from dataclasses import dataclass
from typing import Any

from data.long import lost_tokens
from job.predicting.naming import Prediction, Text
from job.predicting.predictor import Predictor
from job.serving.errors import Refused
from job.serving.queue import Ticket

VALUE = "value"  # what a number is called


@dataclass
class Part:
    """One text of a ticket: its tokens, and its answer once there is one. Without `row`, with
    `fault` or with an answer from the beginning, it is no text."""

    ticket: Ticket
    text: Text
    row: dict[str, Any] | None = None
    fault: str | None = None
    answer: list[dict[str, Any]] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it, of a pair in one of the two."""
        parts = (self.text,) if isinstance(self.text, str) else self.text
        return not all(text.strip() for text in parts)

    @property
    def tokens(self) -> int:
        return 0 if self.row is None else len(self.row["input_ids"])

    @property
    def cut(self) -> bool:
        return self.row is not None and "full_length" in self.row and lost_tokens(self.row) > 0


def make_part(ticket: Ticket, text: Text | Refused) -> Part:
    """A text of a ticket; what was refused has its answer by that."""
    if isinstance(text, Refused):
        return Part(ticket, "", answer=[text.body(openai=False)])
    return Part(ticket, text)


@dataclass(frozen=True)
class Answer:
    """What a ticket is sent at its end: the answer's JSON, texts and tokens read, how many texts
    were cut, how often each label was the answer and how many were unsure, and seconds in line and
    at work."""

    body: Any
    tokens: int
    truncated: int
    unsure: int
    labels: tuple[str, ...]
    waited: float
    worked: float


def elements(
    part: Part, prediction: Prediction, raw: list[float], kind: str
) -> list[dict[str, Any]]:
    """One answer as text-embeddings-inference sends it, with what we add: whether each label
    holds, whether the text was cut and whether the answer is unsure. `raw` (C,) are its logits."""
    shares = prediction.probabilities
    holding = set(prediction.labels) if kind == "multi" else {prediction.label}
    scores = raw if part.ticket.ask.raw else list(shares.values())
    rest = {"truncated": part.cut, "unsure": prediction.unsure}
    listed = [
        {"score": score, "label": name, "holds": kind == "regression" or name in holding, **rest}
        for name, score in zip(shares, scores, strict=True)
    ]
    return sorted(listed, key=lambda element: -element["score"])


def describe_predictor(own: Predictor) -> dict[str, Any]:
    """What /info says of a run on labels."""
    decision, names = own.decision, own.label_names
    by_number = names or (VALUE,)
    classifier = {
        "id2label": {str(number): name for number, name in enumerate(by_number)},
        "label2id": {name: number for number, name in enumerate(by_number)},
    }
    judged = names[-1:] if decision.kind == "single" else names  # of two classes the second
    thresholds = zip(judged, decision.thresholds, strict=True) if decision.thresholds else ()
    return {
        "model_dtype": own.precision.dtype,
        "model_type": {"classifier": classifier},
        "max_input_length": own.length.max_length,
        "task": "classify",
        "routes": ["POST /predict", "POST /explain"],
        "kind": decision.kind,
        "pairs": own.pairs,
        "labels": list(names),
        "thresholds": dict(thresholds),
        "unsure_below": decision.limit,
        "device": str(own.precision.device),
    }
