"""What becomes of logits, by decision.json beside this file and numpy alone."""

import json
from pathlib import Path

import numpy as np

SAYS = json.loads(Path(__file__).with_name("decision.json").read_text(encoding="utf-8"))


def decide(logits: np.ndarray) -> list[dict]:
    """An answer for each row of logits (N, C): a label, or those that hold, with probabilities and,
    where the run was asked for it, whether it is unsure; a number in the labels' own unit."""
    names, limit, least = SAYS["labels"], SAYS["unsure"], np.array(SAYS["thresholds"], dtype=float)
    if SAYS["kind"] == "regression":
        values = logits[:, 0] * SAYS["target"]["deviation"] + SAYS["target"]["mean"]
        return [{"value": value} for value in values.tolist()]
    z, cuts = logits.astype(float) / SAYS["temperature"], np.log(least) - np.log1p(-least)
    if SAYS["kind"] == "multi":
        shares = 1 / (1 + np.exp(-z))
        holds = z > (cuts if len(cuts) else 0)
        sure = np.where(holds, shares, 1 - shares).min(axis=1)
    else:
        shares = np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True))
        best = (z[:, 1] - z[:, 0] > cuts[0]).astype(int) if len(cuts) else z.argmax(axis=1)
        holds = np.eye(len(names), dtype=bool)[best]
        sure = shares[holds]  # one a row
    answers = []
    for row, held, certainty in zip(shares.tolist(), holds.tolist(), sure.tolist(), strict=True):
        labels = [name for name, one in zip(names, held, strict=True) if one]
        by_name = dict(zip(names, row, strict=True))
        answer = {"label": ", ".join(labels) or "none", "probabilities": by_name}
        answer |= {"labels": labels} if SAYS["kind"] == "multi" else {}
        answers.append(answer | ({} if limit is None else {"unsure": not certainty >= limit}))
    return answers
