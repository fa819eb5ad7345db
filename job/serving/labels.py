"""What answers /predict and /explain: a Predictor, and batches filled by tokens.

What is admitted is cleaned and encoded at once, so that its tokens are counted and not guessed.
A step answers the oldest rows, as many as the budget of tokens holds, the longest first.
"""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.losses import Batch
from job.predicting.explain import explain_texts
from job.predicting.naming import Text, name_predictions
from job.predicting.outputs import piece_cells
from job.predicting.predictor import CHUNK, Predictor
from job.serving.answers import Answer, Part, describe_predictor, elements, make_part
from job.serving.asks import Ask, read_explain, read_predict
from job.serving.errors import Refused, model_failed, no_text
from job.serving.queue import Ticket, room


@dataclass
class LabelDesk:
    """A Desk for a run on labels. `budget` tokens are answered in one step."""

    predictor: Predictor
    budget: int
    rows: deque[Part] = field(default_factory=deque)
    parts: dict[Ticket, list[Part]] = field(default_factory=dict)
    unexplained: deque[Ticket] = field(default_factory=deque)
    answered: bool = False  # whether the last step was a batch

    # ---- what comes in ----

    def admit(self, tickets: Sequence[Ticket]) -> None:
        """The answer to Desk."""
        fresh = {
            ticket: [make_part(ticket, text) for text in ticket.ask.texts]
            for ticket in tickets
            if not ticket.gone
        }
        parts = [part for ticket in fresh for part in fresh[ticket] if part.answer is None]
        for start in range(0, len(parts), CHUNK):
            self.encode(parts[start : start + CHUNK])
        self.parts |= fresh  # not before: where that fails nothing of them is kept
        for ticket in fresh:
            self.check(ticket)

    def encode(self, parts: Sequence[Part]) -> None:
        """Give each its tokens, or its fault."""
        for part in parts:
            part.fault = self.predictor.fault(part.text)
        self.fill([part for part in parts if part.fault is None])

    def fill(self, parts: Sequence[Part]) -> None:
        """Tokens of texts without a fault; where no token is left of one, that is its fault."""
        if not parts:
            return
        try:
            rows = self.predictor.encode([part.text for part in parts])
        except ValueError as error:
            if len(parts) == 1:
                parts[0].fault = str(error)
            for part in parts if len(parts) > 1 else ():
                self.fill([part])
            return
        for part, row in zip(parts, rows, strict=True):
            part.row = row

    def check(self, ticket: Ticket) -> None:
        """Put the rows of a ticket in line, or send it why it cannot be answered."""
        ask, parts = ticket.ask, self.parts[ticket]
        for place, part in enumerate(parts):
            name = f"inputs: item {place}" if ask.batch else "inputs"
            reason = (part.fault or "").removeprefix("text: ")
            if part.fault is not None:
                if not ask.partial:
                    return self.refuse(ticket, no_text(f"{name}: {reason}", part.empty))
                part.answer = [no_text(reason, part.empty).body(openai=False)]
            elif part.cut and not ask.cut:
                most = self.predictor.length.max_length
                return self.refuse(ticket, Refused(
                    413, "validation", f"{name} is longer than the {most} tokens that are read; "
                    "leave out truncate, or say true, to have it cut",
                ))  # fmt: skip
        if ask.explain:
            self.unexplained.append(ticket)
        elif all(part.answer is not None for part in parts):
            self.finish(ticket)
        else:
            self.rows.extend(part for part in parts if part.answer is None)
        return None

    def refuse(self, ticket: Ticket, refusal: Refused) -> None:
        """Send it why, and forget it."""
        self.parts.pop(ticket, None)
        ticket.send(refusal)

    # ---- what is done ----

    def busy(self) -> bool:
        """The answer to Desk."""
        return bool(self.rows or self.unexplained)

    def step(self) -> None:
        """The answer to Desk: one batch, or one explanation, in turn where there are both."""
        if self.unexplained and (self.answered or not self.rows):
            self.answered = False
            self.explain(self.unexplained.popleft())
        elif taken := self.take():
            self.answered = True
            self.answer(taken)

    def take(self) -> list[Part]:
        """The oldest rows, whose tokens together are within the budget, or one."""
        taken: list[Part] = []
        tokens = 0
        while self.rows and len(taken) < CHUNK:
            part = self.rows[0]
            if part.ticket.gone:
                self.parts.pop(part.ticket, None)
            elif taken and tokens + part.tokens > self.budget:
                break
            else:
                taken.append(part)
                tokens += part.tokens
            self.rows.popleft()
        return taken

    def answer(self, taken: list[Part]) -> None:
        """Answer these rows, and send them to the tickets of which none is left."""
        now = time.perf_counter()
        for part in taken:
            part.ticket.begun = part.ticket.begun or now
        try:
            logits = self.logits(taken)
            for place, answer in enumerate(self.name(taken, logits)):
                taken[place].answer = answer
        except Exception as error:  # whatever a model meets is its requests' end, not the server's
            self.stumble(taken, error)
            return
        for ticket in {part.ticket: None for part in taken}:
            parts = self.parts.get(ticket)
            if parts is not None and all(part.answer is not None for part in parts):
                self.finish(ticket)

    def stumble(self, taken: Sequence[Part], error: Exception) -> None:
        """Rows that the model failed on: one by one, so that one spoils no other's answer; alone,
        its ticket is sent it."""
        if len(taken) > 1:
            for part in taken:
                if part.ticket in self.parts:
                    self.answer([part])
            return
        ticket = taken[0].ticket
        self.rows = deque(part for part in self.rows if part.ticket is not ticket)
        self.refuse(ticket, model_failed(error))

    def logits(self, taken: Sequence[Part]) -> Tensor:
        """(N, C) of the rows, fp32 on the host."""
        logits = torch.zeros(len(taken), len(self.predictor.label_names) or 1)

        def keep(batch: Batch, part: Tensor) -> None:
            logits[batch["rows"].tolist()] = part.float().cpu()

        rows = [{**(part.row or {}), "row": place} for place, part in enumerate(taken)]
        self.predictor.run_rows(rows, [part.text for part in taken], keep)
        if not bool(logits.isfinite().all()):
            raise ValueError("it answers with numbers that are none (NaN or infinite)")
        return logits

    def explain(self, ticket: Ticket) -> None:
        """Which words an answer rests on."""
        if ticket.gone:
            self.parts.pop(ticket, None)
            return
        ticket.begun = time.perf_counter()
        ask: Ask = ticket.ask
        names = self.predictor.label_names
        if ask.label is not None and ask.label not in names:
            known = ", ".join(names) or "none, but a number"
            wrong = f"there is no label {ask.label!r:.60} to explain; there are {known}"
            return self.refuse(ticket, Refused(422, "validation", wrong, param="label"))
        try:
            parts = self.parts[ticket]
            (pieces,) = explain_texts(self.predictor, [parts[0].text], [ask.label])
            (row,) = self.name(parts, self.logits(parts))
        except Exception as error:
            return self.refuse(ticket, model_failed(error))
        self.parts[ticket][0].answer = row
        label = ask.label or row[0]["label"]
        if ask.label is None and self.predictor.decision.kind == "single":
            label = next(element["label"] for element in row if element["holds"])
        return self.finish(ticket, {
            "label": label,
            "truncated": self.parts[ticket][0].cut,
            "pieces": [piece_cells(piece, ()) for piece in pieces],
        })  # fmt: skip

    # ---- what goes out ----

    def name(self, parts: Sequence[Part], logits: Tensor) -> list[list[dict[str, Any]]]:
        """The elements of each answer, sorted by score, the largest first. logits (N, C)."""
        own = self.predictor
        texts = [part.text for part in parts]
        predictions = name_predictions(texts, own.decision, logits, own.label_names)
        rows = zip(parts, predictions, logits.tolist(), strict=True)
        return [elements(*row, own.decision.kind) for row in rows]

    def finish(self, ticket: Ticket, body: Any = None) -> None:
        """Send a ticket its answer."""
        parts, done = self.parts.pop(ticket), time.perf_counter()
        begun = ticket.begun or done
        answers = [part.answer or [] for part in parts]
        held = [e["label"] for row in answers for e in row if e.get("holds")]
        if body is None:
            shown = [row[: ticket.ask.top] for row in answers]
            body = shown if ticket.ask.batch else shown[0]
        ticket.send(
            Answer(
                body,
                tokens=sum(part.tokens for part in parts),
                truncated=sum(part.cut for part in parts),
                unsure=sum(bool(row and row[0].get("unsure")) for row in answers),
                labels=tuple(held),
                waited=begun - ticket.accepted,
                worked=done - begun,
            )
        )

    def info(self) -> dict[str, Any]:
        """The answer to Desk."""
        return describe_predictor(self.predictor)

    def warm(self) -> None:
        """The answer to Desk."""
        text: Text = ("a", "a") if self.predictor.pairs else "a"
        with suppress(ValueError):  # there are tokenizers that know no "a"
            self.predictor([text])

    def read(self, route: str, body: Any, most: int) -> tuple[Ask, int]:
        """The answer to Desk."""
        own = self.predictor
        side = own.length.truncation if own.length.long == "cut" else None
        if route == "explain":
            ask = read_explain(body, own.pairs)
        else:
            ask = read_predict(body, own.pairs, side, most)
        texts = ("" if isinstance(text, Refused) else "".join(text) for text in ask.texts)
        return ask, room(texts)

    def answers(self, route: str) -> str | None:
        """The answer to Desk."""
        if route == "chat":
            return "this run labels texts, and does not chat; ask POST /predict"
        return None
