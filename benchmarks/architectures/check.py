"""What one architecture does in openloop: four short runs as a user would start them, each asked
again from its folder.

A run is refused (a ValueError before step 1, whose words are kept), or it trains three steps, is
tested, exported and loaded again. What must hold of it then is in `faults_of`.
"""

import csv
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

from openloop import open_job, run_job
from benchmarks.architectures.configs import POSITIONS, tiny_config
from benchmarks.architectures.tokenizers import WORDS, kind_of, make_tokenizer, special_ids
from configs.read import parse_config
from data.encode import encode_texts
from data.loaders import Padding, collate
from data.long import LengthArgs
from engine.evaluate import inference
from engine.losses import logits_of
from job.folder import run_folder
from job.job import Job
from job.predicting.predictor import Predictor
from job.tasks.load import load_predictor
from models.apart import forward_apart
from models.fast.map import PATHS, Replacement
from models.heads import transformers_model
from models.quiet import quiet_transformers

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "lora": {"lora": {"targets": "all-linear", "rank": 2, "alpha": 4.0}},
    "full": {},
    "last:1": {"model": {"train": "last:1"}},
    "checkpointing": {"model": {"activation_checkpointing": True}},
}
TOO_LONG = " ".join(WORDS * 8)
TEXTS = ["good", "the film was a superb story", TOO_LONG, "boring and poor music of people in town"]
CLOSE = 2e-4  # of logits, which are of order 1


@dataclass
class Seen:
    """One run of one architecture. `refused`: why it was not begun; `faults`: what must not be."""

    variant: str
    refused: str | None = None
    faults: list[str] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)  # fast ones, by their names in models/fast/map.py
    apart: bool = False  # whether padded batches run in parts
    run: Path | None = None


def make_folder(model_type: str, folder: Path, chat: bool = False) -> Path:
    """A random model of this architecture, for `chat` its language model, whose weights are large
    enough to tell texts apart, with a tokenizer of its kind."""
    tokenizer = make_tokenizer(kind_of(model_type))
    unused = 8 if chat else 0  # rows that no word has, as many language models are published
    config = tiny_config(model_type, special_ids(tokenizer), len(tokenizer) + unused)
    torch.manual_seed(0)
    tokenizer.save_pretrained(folder)
    classes = (MODEL_FOR_CAUSAL_LM_MAPPING if chat else MODEL_MAPPING)[type(config)]
    kind = classes[0] if isinstance(classes, tuple) else classes
    assert kind is not None
    try:
        model = kind(config)
    except ImportError:  # it wants a library for pictures
        config.save_pretrained(folder)
        return folder
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and name.endswith(".weight"):
                parameter.normal_(std=0.2)
        for module in model.modules():
            if getattr(module, "padding_idx", None) is not None:
                table = getattr(module, "weight", None)
                if table is not None:
                    table[module.padding_idx] = 0  # as it is made, and stays
    with quiet_transformers():
        model.save_pretrained(folder)
    return folder


def make_rows(path: Path) -> Path:
    """30 labelled texts of 1 to 14 words."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(30):
            words = [WORDS[(i * 7 + j * 3) % len(WORDS)] for j in range(1 + i * 5 % 14)]
            writer.writerow([f"{' '.join(words)} {i}", "good" if i % 2 else "bad"])
    return path


def make_config(source: Path, rows: Path, runs: Path, variant: str) -> Any:
    """The recipe of one run: three steps of two micro-batches."""
    tables: dict[str, Any] = {
        "run": {"name": variant.replace(":", "-"), "dir": str(runs), "keep": 1},
        "model": {"source": str(source)},
        "data": {"source": str(rows), "max_length": 24, "validation": 0, "test": 6, "cache": False},
        "train": {"micro_batch_size": 4, "accumulate": 2, "epochs": 1, "lr": 1e-3},
        "eval": {"baseline": False},
        "precision": {"dtype": "fp32", "device": "cpu"},
    }
    for section, values in VARIANTS[variant].items():
        tables[section] = {**tables.get(section, {}), **values}
    return parse_config(tables, "benchmarks/architectures/check.py", [])


def check(source: Path, rows: Path, runs: Path, variant: str) -> Seen:
    """One run of an architecture's folder `source`, from the plan to a second loading."""
    seen = Seen(variant)
    config = make_config(source, rows, runs, variant)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        try:
            job = open_job(config)
        except ValueError as error:
            seen.refused = str(error)
            return seen
        seen.paths = {path_name(row) for row in job.speed.replaced}
        forward = getattr(job.built.model.forward, "__func__", None)
        seen.apart = forward is forward_apart
        if variant == "checkpointing":
            seen.faults += recomputed_faults(job)
            return seen
        before = {n: p.detach().clone() for n, p in job.built.model.named_parameters()}
        run_job(job)
        seen.run = run_folder(config).path
        seen.faults += stuck_parameters(job, before)
        predictor = load_predictor(seen.run, "cpu", False, None)
        seen.faults += padding_faults(predictor)
        seen.faults += length_faults(predictor)
        seen.faults += answers_faults(predictor)
    return seen


def path_name(row: Replacement) -> str:
    """The name in PATHS of what was replaced."""
    fits = [
        name
        for name, path in PATHS.items()
        if path.by.__name__ == row.by and row.switch == "speed." + "/".join(path.switches)
    ]
    return fits[0]


def recomputed_faults(job: Job) -> list[str]:
    """Gradients with activations recomputed beside those of the same pass without."""
    batch = collate([job.encoded["train"].dataset[i] for i in range(4)], job.padding)
    model, grads = job.built.model.train(), []
    for recompute in (True, False):
        if not recompute:
            transformers_model(model).activation_checkpointing_disable()
        torch.manual_seed(1)
        job.compute_loss(model, batch).backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
        model.zero_grad(set_to_none=True)
    if len(grads[0]) != len(grads[1]):
        return [f"recomputed: {len(grads[0])} gradients, else {len(grads[1])}"]
    apart = max((a - b).abs().max().item() for a, b in zip(*grads, strict=True))
    return [f"recomputed gradients differ by {apart:.2g}"] if not apart < CLOSE else []


def stuck_parameters(job: Job, before: dict[str, torch.Tensor]) -> list[str]:
    """Trained parameters that are as they were, and of which the plan says nothing."""
    model = job.built.model
    stuck = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and torch.equal(parameter, before[name])
    ]
    stuck = [name for name in stuck if name not in job.estimate.idle]
    return [f"not trained in silence: {len(stuck)}: {', '.join(stuck[:6])}"] if stuck else []


def padding_faults(predictor: Predictor) -> list[str]:
    """Logits of texts alone, without any padding, beside those of the same in one padded batch."""
    rows, pad = predictor.encode([*TEXTS]), predictor.tokenizer.pad_token_id
    longest = predictor.tokenizer.model_max_length
    with inference(predictor.model), predictor.precision.autocast():
        alone = [collate([row], Padding(pad, multiple=1)) for row in rows]
        singles = torch.cat([logits_of(predictor.model(**batch["inputs"])) for batch in alone])
        together = collate(rows, Padding(pad, multiple=32, max_length=longest))
        batch = logits_of(predictor.model(**together["inputs"]))
    faults = []
    if not singles.isfinite().all():
        faults.append("logits are not finite")
    if (singles[0] - singles[1:]).abs().max().item() < 10 * CLOSE:
        faults.append("all texts have the same logits")
    apart = (singles - batch).abs().max().item()
    return [*faults, f"padded is not alone: {apart:.2g}"] if not apart < CLOSE else faults


def length_faults(predictor: Predictor) -> list[str]:
    """A text as long as the tokenizer says the model takes."""
    longest = min(predictor.tokenizer.model_max_length, 2 * POSITIONS)
    row = encode_texts(predictor.tokenizer, [TOO_LONG * 8], None, LengthArgs(longest))[0]
    batch = collate([row], Padding(predictor.tokenizer.pad_token_id, max_length=longest))
    with inference(predictor.model), predictor.precision.autocast():
        logits = logits_of(predictor.model(**batch["inputs"]))
    return [] if logits.isfinite().all() else [f"{longest} tokens have no finite answer"]


def answers_faults(predictor: Predictor) -> list[str]:
    """What is wrong with the answers to a short, an empty and a too long text."""
    faults = []
    answers = predictor.answer_chunk([*TEXTS])
    faults += [f"no answer: {answer}" for answer in answers if isinstance(answer, str)]
    if predictor.fault("") is None:
        faults.append("an empty text has no fault")
    return faults


def reloaded_faults(run: Path) -> list[str]:
    """In another process: the exported model beside what the run's test wrote."""
    predictor = load_predictor(run, "cpu", False, None)
    lines = (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    answers = predictor([row["text"] for row in rows])
    apart = max(
        abs(row["probabilities"][name] - answer.probabilities[name])
        for row, answer in zip(rows, answers, strict=True)
        for name in row["probabilities"]
    )
    return [f"loaded again the probabilities differ by {apart:.2g}"] if apart > 1e-5 else []
