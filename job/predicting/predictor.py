"""Predictions of a model with the run's own preprocessing: cleaning, tokenizer, cut, labels."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from configs.schema import Config
from data.bags import bags_of
from data.clean import CleanArgs, clean_text
from data.encode import encode_texts
from data.intake import check_text
from data.labels.reader import RowError
from data.loaders import Padding, collate, fill_batches
from data.long import LengthArgs, widest_window
from engine.decision import Decision, override
from engine.evaluate import inference, to_device
from engine.losses import Batch, logits_of
from engine.precision import DTYPES, Precision, choose_device
from job.ending import reading
from job.folder import Folder, finished_config, refuse_links
from job.predicting.naming import Prediction, Text, name_predictions
from job.rows import clean_args, text_columns
from job.speed import evaluation_rows, speed_up_model
from job.testing.decided import read_decision
from job.training.bag import settle_precision
from models.export import load_exported
from models.fast.speed import Speed
from models.ngrams.bag import NgramTokenizer
from models.ngrams.fusion import Fusion, load_fusion

if TYPE_CHECKING:
    from job.predicting.explain import Piece

CHUNK = 256  # texts tokenised and sorted by length together
TOKENS = 2048  # of short texts in one pass: beginning one takes as long as a hundred tokens


def make_padding(tokenizer: Any) -> Padding:
    """Padding after the text, never past the model's last position."""
    return Padding(tokenizer.pad_token_id, max_length=tokenizer.model_max_length)


def length_args(config: Config) -> LengthArgs:
    """How much of a text is read, as the data package takes it."""
    return LengthArgs(**config.data.model_dump(include={f.name for f in fields(LengthArgs)}))


def window_pool(config: Config) -> Literal["mean", "max"] | None:
    """How the vectors of a text's windows become one; None where a text is one row."""
    return (config.data.window_pool or "mean") if config.data.long == "chunks" else None


def text_fault(text: Any, pairs: bool, clean: CleanArgs) -> str | None:
    """Why something is no text, or where there are `pairs` no pair of texts; None where it is."""
    is_pair = isinstance(text, tuple) and len(text) == 2
    if is_pair != pairs and isinstance(text, str | tuple):
        wanted = "pairs of texts" if pairs else "single texts"
        return f"this run was trained on {wanted}; got {text!r:.100}"
    names = ("first text", "second text") if is_pair else ("text",)
    for name, part in zip(names, text if is_pair else (text,), strict=True):
        if isinstance(part, bytes):
            return f"{name}: expected text, got the bytes {part!r:.60}; decode them first"
        try:
            checked = check_text(name, part)
        except RowError as error:
            return str(error)
        if not clean_text(checked, clean).strip():
            return f"{name}: nothing is left of it after cleaning"
    return None


@dataclass
class Predictor:
    """Call it with texts (or pairs of texts); it gives one Prediction for each, in order."""

    model: nn.Module
    tokenizer: Any
    decision: Decision  # from logits to an answer
    label_names: tuple[str, ...]
    clean: CleanArgs
    length: LengthArgs
    precision: Precision
    micro_batch_size: int
    pairs: bool  # whether an input is a pair of texts, as in training
    fusion: Fusion | None = None  # the bag of n-grams that answers beside it

    def __call__(self, texts: Iterable[Text]) -> list[Prediction]:
        """Raises ValueError naming the first item, counted from 0, that training would refuse."""
        if isinstance(texts, str):
            raise ValueError(f"got one text, {texts!r:.60}; give a list of texts: [text]")
        if not isinstance(texts, Iterable):
            raise ValueError(f"got {texts!r:.60}; give a list of texts: [text]")
        items = [tuple(t) if isinstance(t, list) else t for t in texts]
        for i, item in enumerate(items):
            if (fault := self.fault(item)) is not None:
                raise ValueError(f"item {i}: {fault}")
        predictions: list[Prediction] = []
        for start in range(0, len(items), CHUNK):
            predictions += self.predict_chunk(items[start : start + CHUNK])
        return predictions

    def decide(
        self, unsure: float | None = None,
        threshold: float | Mapping[str, float] | Mapping[str | None, float] | None = None,
    ) -> "Predictor":  # fmt: skip
        """A predictor of the same model that decides otherwise: answers less sure than `unsure` are
        marked as such; a label holds whose probability is more than `threshold`, one for all or by
        name, of two classes that of the second or of the one that is named.

        Raises ValueError where that makes no sense for the run's labels.
        """
        return replace(self, decision=override(self.decision, self.label_names, unsure, threshold))

    def explain(self, text: Text, label: str | None = None) -> "list[Piece]":
        """What an answer rests on, as explain_texts has it: words and sentences of the text, the
        heaviest first. Of the label answered, if none is named."""
        from job.predicting.explain import explain_texts

        item = (text[0], text[1]) if isinstance(text, list) and len(text) == 2 else text
        return explain_texts(self, [item], [label])[0]

    def fault(self, text: Any) -> str | None:
        """Why something is no text, or pair of texts, that this run could be trained on; None where
        it is one. Here too, what is shorter than data.clean.min_chars is a text."""
        return text_fault(text, self.pairs, self.clean)

    def answer_chunk(self, chunk: list[Text]) -> list[Prediction | str]:
        """A prediction for each text without a fault; where the tokenizer finds no token in one,
        what is wrong with it."""
        try:
            return [*self.predict_chunk(chunk)]
        except ValueError as error:
            if len(chunk) == 1:
                return [str(error)]
            return [answer for text in chunk for answer in self.answer_chunk([text])]

    def clean_parts(self, chunk: list[Text]) -> tuple[list[str], list[str] | None]:
        """The texts, and of pairs the second ones, cleaned as in training."""
        first = [clean_text(t[0] if isinstance(t, tuple) else t, self.clean) for t in chunk]
        second = [clean_text(t[1], self.clean) for t in chunk if isinstance(t, tuple)]
        return first, second or None

    def encode(self, chunk: list[Text]) -> list[dict]:
        """Token rows of the chunk; each keeps its place under "row"."""
        first, second = self.clean_parts(chunk)
        if isinstance(self.tokenizer, NgramTokenizer):
            bags = bags_of(self.tokenizer, first, second)
            return [{**bag, "row": i, "labels": 0} for i, bag in enumerate(bags)]
        with reading("the tokenizer"):  # a pattern of it may search for ever, and gives up
            rows = encode_texts(self.tokenizer, first, second, self.length)
        return [{**row, "row": i, "labels": 0} for i, row in enumerate(rows)]

    def predict_chunk(self, chunk: list[Text]) -> list[Prediction]:
        """One prediction a text."""
        return name_predictions(chunk, self.decision, self.logits(chunk), self.label_names)

    def logits(self, chunk: list[Text]) -> Tensor:
        """(N, C) of the chunk's texts, fp32 on the host; of models and bags as they answer
        together."""
        logits = torch.zeros(len(chunk), len(self.label_names) or 1)

        def keep(batch: Batch, part: Tensor) -> None:
            logits[batch["rows"].tolist()] = part.float().cpu()

        self.run(chunk, keep)
        return logits

    def run(self, chunk: list[Text], on_batch: Callable[[Batch, Tensor], None]) -> None:
        """Give each batch of the chunk, whose "rows" are places in it, and its logits (B, C) to
        `on_batch`. Long rows first, so that a batch holds rows of like length."""
        self.run_rows(self.encode(chunk), chunk, on_batch)

    def run_rows(
        self, rows: list[dict], chunk: list[Text], on_batch: Callable[[Batch, Tensor], None]
    ) -> None:
        """The same of rows that encode() gave for the texts of the chunk."""
        padding = make_padding(self.tokenizer)
        lengths, widest = [len(row["input_ids"]) for row in rows], None
        if "windows" in rows[0]:
            widest = widest_window([row["windows"] for row in rows])
        beside = None if self.fusion is None else self.fusion.answer(*self.clean_parts(chunk))
        with inference(self.model):
            size, multiple = self.micro_batch_size, padding.multiple
            least = min(TOKENS, size * self.length.max_length)
            for numbers in fill_batches(lengths, size, multiple, widest, least):
                batch = collate([rows[number] for number in numbers], padding)
                moved = to_device(batch, self.precision.device)
                with self.precision.autocast():
                    logits = logits_of(self.model(**moved["inputs"]))  # (B, C)
                if self.fusion is not None and beside is not None:
                    logits = self.fusion.weights.join(logits, beside[moved["rows"]])
                on_batch(moved, logits)


def make_predictor(
    config: Config, model: nn.Module, tokenizer: Any, decision: Decision,
    label_names: tuple[str, ...], precision: Precision, fusion: Fusion | None = None,
) -> Predictor:  # fmt: skip
    """A predictor for a model in memory, and for the bag that stands beside it, if one does."""
    return Predictor(
        model, tokenizer, decision, label_names, clean_args(config),
        length_args(config), precision, evaluation_rows(config, model, precision.device),
        pairs=len(text_columns(config)) == 2, fusion=fusion,
    )  # fmt: skip


def made_with(folder: Folder) -> dict[str, Any]:
    """What a run was made with; nothing where that is gone and one goes on all the same. Raises
    ValueError where its dtype is none."""
    if not (folder.path / "environment.json").exists():
        return {}
    then = folder.read_json("environment.json", "device", "dtype")
    for key in ("dtype", "teacher.dtype"):
        if then.get(key, "fp32") not in [*DTYPES]:  # what stands there may be a list, without hash
            raise ValueError(
                f"{folder.path}/environment.json: {key} is {then[key]!r}; expected "
                f"{', '.join(DTYPES)}"
            )
    return then


def recorded_dtype(folder: Folder, key: str = "dtype") -> str | None:
    """The dtype that "auto" meant when a run was started, by its newest checkpoint where its
    environment.json is damaged or gone; None where nothing was trained yet. Under "teacher.dtype"
    stands that of a teacher, where it is another."""
    refuse_links(folder)
    with suppress(ValueError):
        if then := made_with(folder):
            return then.get(key)
    return folder.recorded().get("environment", {}).get(key)


def finished_precision(
    folder: Folder, config: Config, device: str | None, tokenizer: Any
) -> Precision:
    """The precision in which a finished run answers on a device, or on that of its recipe."""
    then, chosen = made_with(folder), device or config.precision.device
    # on the device of the training "auto" means what it meant there, and nothing is probed
    same = str(choose_device(chosen)[0]) == then.get("device")
    return settle_precision(
        chosen, config.precision.dtype, tokenizer, then["dtype"] if same else None
    )


def open_predictor(
    folder: Folder, device: str | None, allow_code: bool, base: str | Path | None,
    allow_network: bool = False,
) -> tuple[Predictor, Speed]:  # fmt: skip
    """The predictor of a run folder whose model is published, and the fast paths that run. Raises
    ValueError where there is none, and where the base of its adapter is at neither `base` nor the
    place it was trained from."""
    config = finished_config(folder)
    with reading(f"the model in {folder.path}"):
        model, tokenizer, args = load_exported(
            folder.model, allow_code, base, allow_network, verified=True
        )
        fusion = load_fusion(folder.model, args.num_labels)
        decision = read_decision(folder.model, args)
    precision = finished_precision(folder, config, device, tokenizer)
    model.to(precision.device).eval()
    speed = speed_up_model(model, config, precision, answers=True)
    predictor = make_predictor(
        config, model, tokenizer, decision, args.label_names, precision, fusion
    )
    return predictor, speed
