"""Opened weights that a model starts from: a plain model, or a finished run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from models.args import args_from_json
from models.load import read_weights
from models.resolve import as_characters
from models.thin import thin


@dataclass(frozen=True)
class Source:
    """Opened weights. `state` is set where they exist in memory only (a run's method, merged in);
    `record` is a run's openloop.json, None for a plain model."""

    folder: str
    config: Any
    state: dict[str, Tensor] | None
    record: dict[str, Any] | None


def has_native_head(source: Source) -> bool:
    """Whether it holds a classifier of its architecture's own."""
    if source.record is not None:
        return source.record["model"]["head_kind"] == "native"
    architectures = getattr(source.config, "architectures", None) or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)


def source_target(source: Source) -> tuple[float, float]:
    """(mean, deviation) that a run's head speaks; a head from elsewhere speaks plain numbers."""
    if source.record is None:
        return 0.0, 1.0
    old = args_from_json(source.record["model"])
    return old.target_mean, old.target_deviation


def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A sequence classifier's tensors less its head's: nearly all lie below the one backbone."""
    roots = [name.partition(".")[0] for name in state]
    backbone = max(set(roots), key=roots.count)
    return {name: tensor for name, tensor in state.items() if name.startswith(backbone + ".")}


def absolute(source: str) -> str:
    """A source's name that means the same in every working folder."""
    if source.startswith(("hub:", "package:")):
        return source
    prefix = "run:" if source.startswith("run:") else ""
    return prefix + as_characters(str(Path(source.removeprefix("run:")).resolve()))


def thinned(source: Source, every: int, notes: list[str]) -> Source:
    """With every so-manyth layer alone."""
    if every == 1:
        return source
    state = read_weights(source.folder) if source.state is None else source.state
    config, state, sentence = thin(source.config, state, every)
    notes.append(sentence)
    return replace(source, config=config, state=state)
