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
from transformers.models.auto.modeling_auto import MODEL_MAPPING

import train
from benchmarks.architectures.configs import tiny_config
from benchmarks.architectures.tokenizers import WORDS, kind_of, make_tokenizer, special_ids
from configs.read import parse_config
from data.loaders import Padding, collate
from engine.evaluate import inference
from engine.losses import logits_of
from job.banner import make_plan
from job.folder import open_folder, run_folder
from job.predictor import Predictor, load_predictor
from job.prepare import Job, prepare
from models.lora import adapters_of
from report.plan import plan_lines

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

    model_type: str
    variant: str
    refused: str | None = None
    faults: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)  # fast ones, by what runs
    notes: list[str] = field(default_factory=list)
    run: str | None = None


def make_folder(model_type: str, folder: Path) -> Path:
    """A random model of this architecture, whose weights are large enough to tell texts apart, with
    a tokenizer of its kind."""
    tokenizer = make_tokenizer(kind_of(model_type))
    config = tiny_config(model_type, special_ids(tokenizer), len(tokenizer))
    torch.manual_seed(0)
    classes = MODEL_MAPPING[type(config)]
    model = (classes[0] if isinstance(classes, tuple) else classes)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and name.endswith(".weight"):
                parameter.normal_(std=0.2)
        for module in model.modules():
            if getattr(module, "padding_idx", None) is not None:
                table = getattr(module, "weight", None)
                if table is not None:
                    table[module.padding_idx] = 0  # as it is made, and stays
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
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


def check(model_type: str, source: Path, rows: Path, runs: Path, variant: str) -> Seen:
    """One run of an architecture's folder `source`, from the plan to a second loading."""
    seen = Seen(model_type, variant)
    config = make_config(source, rows, runs, variant)
    console = StringIO()
    with redirect_stdout(console), redirect_stderr(console):
        try:
            job = prepare(config, allow_code=False)
        except ValueError as error:
            seen.refused = str(error)
            return seen
        folder = run_folder(config)
        plan_lines(make_plan(job, folder), verbose=True)
        seen.paths = [row.by for row in job.speed.replaced]
        seen.notes = job.notes
        folder.path.mkdir(parents=True)
        open_folder(config, folder, resume=False, fresh=False)
        before = {n: p.detach().clone() for n, p in job.built.model.named_parameters()}
        options = train.parse_arguments(["--config", "x.toml"])
        train.train_and_finish(job, folder, options, "python train.py")
        seen.run = str(folder.path)
        seen.faults += stuck_parameters(job, before)
        predictor = load_predictor(folder.path, "cpu", False, None)
        seen.faults += padding_faults(predictor)
        seen.faults += answers_faults(predictor)
    return seen


def stuck_parameters(job: Job, before: dict[str, torch.Tensor]) -> list[str]:
    """Trained parameters that are as they were, and of which the plan says nothing."""
    model = job.built.model
    adapters = adapters_of(model)
    stuck = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and torch.equal(parameter, before[name]):
            owner, _, last = name.rpartition(".")
            if owner in adapters and last == "lora_A":  # its gradient is zero where B is
                continue
            stuck.append(name)
    stuck = [name for name in stuck if name not in job.estimate.idle]
    return [f"not trained in silence: {len(stuck)}: {', '.join(stuck[:6])}"] if stuck else []


def padding_faults(predictor: Predictor) -> list[str]:
    """Logits of texts alone, without any padding, beside those of the same in one padded batch."""
    rows = predictor.encode(TEXTS)
    alone = Padding(predictor.tokenizer.pad_token_id, predictor.tokenizer.padding_side, 1)
    together = Padding(
        predictor.tokenizer.pad_token_id, predictor.tokenizer.padding_side, 32,
        predictor.tokenizer.model_max_length,
    )  # fmt: skip
    with inference(predictor.model):
        singles = torch.cat(
            [logits_of(predictor.model(**collate([row], alone)["inputs"])) for row in rows]
        )
        batch = logits_of(predictor.model(**collate(rows, together)["inputs"]))
    faults = []
    if not singles.isfinite().all():
        faults.append("logits are not finite")
    if float((singles[0] - singles[1:]).abs().max()) < 10 * CLOSE:
        faults.append("all texts have the same logits")
    apart = (singles - batch).abs().max().item()
    if not apart < CLOSE:
        faults.append(f"padded is not alone: {apart:.2g}")
    return faults


def answers_faults(predictor: Predictor) -> list[str]:
    """What is wrong with the answers to a short, an empty and a too long text."""
    faults = []
    answers = predictor.answer_chunk(TEXTS)
    faults += [f"no answer: {answer}" for answer in answers if isinstance(answer, str)]
    if predictor.fault("") is None:
        faults.append("an empty text has no fault")
    return faults


def reloaded_faults(run: str) -> list[str]:
    """In another process: the exported model beside what the run's test wrote."""
    predictor = load_predictor(run, "cpu", False, None)
    lines = (Path(run) / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    answers = predictor([row["text"] for row in rows])
    apart = max(
        abs(row["probabilities"][name] - answer.probabilities[name])
        for row, answer in zip(rows, answers, strict=True)
        for name in row["probabilities"]
    )
    return [f"loaded again the probabilities differ by {apart:.2g}"] if apart > 1e-5 else []
