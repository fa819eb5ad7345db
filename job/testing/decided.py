"""model/decision.json: how a finished model's logits become answers."""

import json
from collections.abc import Sequence
from pathlib import Path

from engine.decision import Decision, from_json, to_json
from files.read import read_json
from job.training.loss import target_of
from models.args import ModelArgs

DECISION = "decision.json"


def write_decision(decision: Decision, names: Sequence[str], folder: Path) -> None:
    """Write it into a model folder that is about to be written, and lists all it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(decision, names), indent=2, ensure_ascii=False) + "\n"
    (folder / DECISION).write_text(text, encoding="utf-8")


def read_decision(folder: Path, args: ModelArgs) -> Decision:
    """The decision of an exported model; of one that was exported before there were any, what its
    logits answer as they are. Raises ValueError where it is damaged, or another model's."""
    path = folder / DECISION
    if not path.is_file():
        return Decision(args.kind, target=target_of(args))
    return from_json(read_json(path), str(path), args.kind, args.label_names)
