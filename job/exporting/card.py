"""The card of an export (README.md), from the run's own records and what its user says."""

from typing import Any

from configs.schema import Config
from job.exporting.format import Format, Source, Written
from job.exporting.words import Words
from job.reporting.card import card_results
from job.testing.fusion import ENCODER
from job.verify import read_result
from models.args import CHAT
from report.card import Result
from report.format import format_count
from report.model_card import ModelCard, model_card
from report.parity import ParityTable

SHOWN = 6  # figures
DOES = {
    "single": "Answers a text with one label.",
    "multi": "Answers a text with those of its labels that hold.",
    "regression": "Answers a text with a number.",
    CHAT: "Replies to messages.",
}


def export_card(
    source: Source, chosen: Format, written: Written, table: ParityTable, words: Words
) -> str:
    """The whole card."""
    config, args = source.config, source.args
    results, measured = figures(source)
    does = DOES[args.kind] if not source.plain_texts else "Goes on with a text."
    if source.texts is not None and source.texts.pairs:
        does = does.replace("a text", "a pair of texts")
    card = ModelCard(
        name=config.run.name,
        does=does,
        usage=chosen.usage(source, words.repo or "path/to/this/folder"),
        keeps=[*reads(source), *written.notes],
        trained=trained(source, words),
        results=results,
        measured=measured,
        parity=table,
        library=chosen.library,
        task="text-generation" if source.is_chat else "text-classification",
        tags=["openloop", *([args.method.kind] if args.method else [])],
        relation=chosen.relation,
        license=words.license,
        languages=words.languages,
        base_model=words.base_model or hub_name(args.source),
        dataset=words.dataset or hub_name(str(config.data.source)),
        labels=args.label_names,
    )
    return model_card(card)


def hub_name(source: str) -> str | None:
    """The hub's name of a model or a set of rows, where that is one of the hub's."""
    name = source.removeprefix("hub:")
    is_name = source.startswith("hub:") and not name.startswith((".", "/", "~"))
    return name if is_name and name.count("/") < 2 else None


def public_name(source: str) -> str:
    """A source as a card may name it: without places on this machine."""
    if source.startswith("package:"):
        return source.removeprefix("package:").partition("/")[0].replace("_", "-")
    return hub_name(source) or "a model of its trainer's"


def reads(source: Source) -> list[str]:
    """How it takes its texts."""
    texts, clean = source.texts, source.config.data.clean
    if texts is None:
        return []
    lost = {"right": "end", "left": "beginning"}[texts.truncation]
    lines = [f"Texts of more than {texts.max_length} tokens lose their {lost}."]
    if texts.alone:
        lines.append(
            "One text at a time: beside a longer one it is padded, and answered otherwise."
        )
    steps = [
        word
        for word, runs in (
            ("HTML tags become a space and entities their character", clean.html),
            ("control characters a space", clean.control),
            (f"letters are brought to {clean.unicode}", clean.unicode != "none"),
            ("runs of white space become one space", clean.spaces),
        )
        if runs
    ]
    if steps:
        lines.append(f"It was trained on texts that were cleaned first: {', '.join(steps)}.")
    return lines


def trained(source: Source, words: Words) -> list[str]:
    """On what it was trained, and how."""
    config, args = source.config, source.args
    method = f" with {args.method.kind}" if args.method else ""
    splits = source.folder.read_json("data.json").get("splits", {})
    rows = splits.get("train") if isinstance(splits, dict) else None
    base = words.base_model or public_name(args.source)
    lines = [f"Fine-tuned from {base}{method} by openloop."]
    if isinstance(rows, int):
        of = "conversations" if source.is_chat else "rows"
        lines.append(f"{format_count(rows)} training {of}, {steps_of(config)}.")
    return lines


def steps_of(config: Config) -> str:
    """How long it trained, and at which rate."""
    train = config.train
    long = f"{train.epochs} epoch{'' if train.epochs == 1 else 's'}"
    return f"{long}, learning rate {train.lr:g}, seed {config.run.seed}"


def figures(source: Source) -> tuple[list[Result], str]:
    """The run's figures of what was written, and on which rows: of an encoder with a bag beside it,
    the encoder's alone."""
    result = read_result(source.folder)
    metrics: dict[str, Any] = result.get("test") or {}
    if source.fusion is not None:
        metrics = result.get("fused", {}).get(ENCODER, {})
    if not metrics:
        return [], ""
    measured = f"{format_count(metrics['n'])} test rows of the run's own data"
    if source.is_chat:
        measured = f"{format_count(metrics['conversations'])} test conversations"
        intervals = metrics.get("intervals", {})
        return [
            Result(name, metrics[name], metrics["n"], *intervals.get(name, (None, None)))
            for name in ("perplexity", "loss", "token_accuracy") if name in metrics
        ], measured  # fmt: skip
    return card_results(metrics)[:SHOWN], measured
