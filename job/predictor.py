"""Predictions of a model with the run's own preprocessing: cleaning, tokenizer, cut, labels."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from torch import nn

from configs.read import read_config
from configs.schema import Config
from data.clean import CleanArgs, clean_text
from data.encode import encode_texts
from data.loaders import Padding, collate, fill_batches
from engine.evaluate import inference, to_device
from engine.losses import logits_of
from engine.metrics import probabilities
from engine.precision import Precision, choose_precision
from engine.targets import Target
from job.folder import Folder
from job.loss import target_of
from job.speed import set_up_torch, speed_up_model
from models.export import load_exported
from report.format import format_number

CHUNK = 256  # texts tokenised and sorted by length together


@dataclass(frozen=True)
class Prediction:
    """What the model says of one text. For regression `label` is the number as text, rounded, and
    `probabilities` holds it whole under "value"; both are in the labels' own unit."""

    text: str | tuple[str, str]
    label: str
    probability: float | None  # of `label`; None unless a text has exactly one
    probabilities: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The machine-readable form: text, label, probabilities by label name."""
        return {"text": self.text, "label": self.label, "probabilities": self.probabilities}


def make_padding(tokenizer: Any) -> Padding:
    """The tokenizer's own padding, never past the model's last position."""
    return Padding(
        tokenizer.pad_token_id, tokenizer.padding_side, max_length=tokenizer.model_max_length
    )


def clean_args(config: Config) -> CleanArgs:
    """The cleaning steps of [data.clean] as the data room takes them."""
    return CleanArgs(**config.data.clean.model_dump())


def name_prediction(
    text: str | tuple[str, str], kind: str, values: list[float], names: Sequence[str]
) -> Prediction:
    """A row of `probabilities` (C,) with the labels' names put to it."""
    if kind == "regression":
        number = format_number(values[0]).replace(",", "")  # programs read it too
        return Prediction(text, number, None, {"value": values[0]})
    by_name = dict(zip(names, values, strict=True))
    if kind == "multi":
        chosen = [name for name, value in by_name.items() if value > 0.5]
        return Prediction(text, ", ".join(chosen) or "none", None, by_name)
    best = max(by_name, key=lambda name: by_name[name])
    return Prediction(text, best, by_name[best], by_name)


@dataclass
class Predictor:
    """Call it with texts (or pairs of texts); it gives one Prediction for each, in order."""

    model: nn.Module
    tokenizer: Any
    kind: str
    label_names: tuple[str, ...]
    clean: CleanArgs
    max_length: int
    truncation: Literal["right", "left"]
    precision: Precision
    micro_batch_size: int
    pairs: bool  # whether an input is a pair of texts, as in training
    target: Target  # the unit in which the model answers

    def __call__(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        if isinstance(texts, str):
            raise ValueError(f"got one text, {texts!r:.60}; give a list of texts: [text]")
        return list(self.stream(texts))

    def stream(self, texts: Iterable[str | tuple[str, str]]) -> Iterator[Prediction]:
        """Predictions in order, holding no more than a chunk of texts at a time."""
        iterator = iter(texts)
        while chunk := list(islice(iterator, CHUNK)):
            yield from self.predict_chunk(chunk)

    def encode(self, chunk: list[str | tuple[str, str]]) -> list[dict]:
        """Token rows of the chunk; each keeps its place under "row"."""
        for text in chunk:
            if isinstance(text, tuple) != self.pairs:
                wanted = "pairs of texts" if self.pairs else "single texts"
                raise ValueError(f"this run was trained on {wanted}; got {text!r:.100}")
        first = [clean_text(t[0] if isinstance(t, tuple) else t, self.clean) for t in chunk]
        second = [clean_text(t[1], self.clean) for t in chunk if isinstance(t, tuple)]
        rows = encode_texts(self.tokenizer, first, second or None, self.max_length, self.truncation)
        return [{**row, "row": i, "labels": 0} for i, row in enumerate(rows)]

    def predict_chunk(self, chunk: list[str | tuple[str, str]]) -> list[Prediction]:
        """Long rows first, so that a batch holds rows of like length."""
        rows, padding = self.encode(chunk), make_padding(self.tokenizer)
        lengths = [len(row["input_ids"]) for row in rows]
        found: dict[int, Prediction] = {}
        with inference(self.model):
            for numbers in fill_batches(lengths, self.micro_batch_size, padding.multiple):
                batch = collate([rows[number] for number in numbers], padding)
                moved = to_device(batch, self.precision.device)
                with self.precision.autocast():
                    logits = logits_of(self.model(**moved["inputs"]))  # (B, C)
                shares = probabilities(self.kind, logits, self.target).tolist()
                for row, values in zip(batch["rows"].tolist(), shares, strict=True):
                    found[row] = name_prediction(chunk[row], self.kind, values, self.label_names)
        return [found[row] for row in range(len(chunk))]


def make_predictor(
    config: Config, model: nn.Module, tokenizer: Any, kind: str,
    label_names: tuple[str, ...], precision: Precision, target: Target,
) -> Predictor:  # fmt: skip
    """A predictor for a model in memory."""
    return Predictor(
        model, tokenizer, kind, label_names, clean_args(config),
        config.data.max_length, config.data.truncation, precision, config.eval.micro_batch_size,
        pairs=not isinstance(config.data.text, str) and len(config.data.text) == 2, target=target,
    )  # fmt: skip


def load_predictor(run: str | Path, device: str | None, allow_code: bool) -> Predictor:
    """The predictor of a finished run folder. Raises ValueError where there is none."""
    folder = Folder(Path(run))
    if not folder.config.exists():
        runs = sorted(p.parent.name for p in folder.path.parent.glob("*/result.json"))
        known = f"finished runs there: {', '.join(runs)}" if runs else "no finished run is there"
        raise ValueError(
            f"{folder.path} is not a run folder ({known}). Train one with "
            "`python train.py --config configs/imdb_lora.toml`."
        )
    if not folder.model.is_dir():
        raise ValueError(
            f"{folder.path} has no model yet: its training is not finished. Finish it with "
            f"`python train.py --config {folder.config} --resume`."
        )
    config = read_config(folder.config)
    notes = set_up_torch(config)
    model, tokenizer, args = load_exported(folder.model, allow_code=allow_code)
    then = folder.read_json("environment.json")
    chosen = device or config.precision.device
    precision = choose_precision(chosen, config.precision.dtype)
    if config.precision.dtype == "auto" and str(precision.device) == then["device"]:
        precision = choose_precision(chosen, "auto", then["dtype"])
    model.to(precision.device).eval()
    speed = speed_up_model(model, config, precision, tokenizer.padding_side)
    print(f"openloop: {folder.path} on {precision.device} in {precision.dtype}", file=sys.stderr)
    print("".join(f"  {note}\n" for note in [*notes, *speed.notes]), end="", file=sys.stderr)
    return make_predictor(
        config, model, tokenizer, args.kind, args.label_names, precision, target_of(args)
    )
