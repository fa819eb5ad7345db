"""A classifier as a graph that onnxruntime runs without torch, whole or in 8 bits, with a program
that answers as predict.py does."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from files.write import save_text, to_json
from job.exporting.format import EXACT, Parity, Source, Written, exact
from job.exporting.words import is_on_hub

if TYPE_CHECKING:
    import numpy as np

    from engine.decision import Decision

HOME = Path(__file__).resolve().parents[3]
SHIPPED = {  # file of ours -> its name in the folder
    "job/exporting/shipped/predict_onnx.py": "predict_onnx.py",
    "job/exporting/shipped/decide.py": "decide.py",
    "data/clean.py": "data/clean.py",
    "data/markup.py": "data/markup.py",
}
AGREE = 0.99  # of the rows that 8 bits must answer as before
LOST = 0.01  # of accuracy, a loss that must be excluded
UNSEEN = 3  # over N: what none of N rows shows is rarer than that at 95 % (the rule of three)
FEW = round(1 / (1 - AGREE))  # rows of which a single one is more than 1 - AGREE
ENOUGH = 500  # rows to ask for instead


class Onnx:
    """The answers to Format. What is heavy is imported in them."""

    tool = "onnxruntime"
    library = "onnx"
    relation = "finetune"
    promise = "the same labels, probabilities and logits to 1e-4, at every shape of a batch"
    checker = "onnx.py"

    def refuses(self, source: Source) -> str | None:
        from job.exporting.formats.transformers import why_not_cut
        from models.elsewhere.onnx_graph import why_no_graph

        if source.texts is None:
            return "it writes text, and a graph answers once: use --to gguf or --to transformers"
        if not source.tokenizer.is_fast:
            return (
                "its tokenizer runs in Python alone and has no tokenizer.json: use --to "
                "transformers or --to sentence-transformers"
            )
        if (reason := why_no_graph(source.model)) is not None:
            return f"{reason}: use --to transformers"
        if source.texts.alone:
            return "padding would change its answers, and a batch is padded: use --to peft"
        return why_not_cut(source.texts)

    def needs(self) -> None:
        from job.extras import need_extra

        need_extra("export", "a graph for onnxruntime")

    def write(self, source: Source, folder: Path) -> Written:
        from models.elsewhere.onnx_graph import write_graph

        write_graph(source.model, source.tokenizer, folder)
        decision = write_beside(source, folder)
        notes = ["Texts are cleaned, cut and answered as by predict.py."]
        return Written(decision, notes, joined=source.fusion is not None)

    def judge(self, parity: Parity) -> list[str]:
        return exact(parity) + off_shapes(parity, EXACT)

    def usage(self, source: Source, name: str) -> str:
        assert source.texts is not None
        texts = '("a first text", "and a second one")' if source.texts.pairs else '"It was good."'
        packages = "onnxruntime tokenizers numpy"
        on_hub = is_on_hub(name)
        needs = "from huggingface_hub import snapshot_download\n" if on_hub else ""
        folder = f"snapshot_download({name!r})" if on_hub else repr(name)
        return (
            f"# pip install {packages}{' huggingface_hub' if on_hub else ''}\n"
            f"import sys\n\n{needs}sys.path.insert(0, {folder})"
            f"{'' if on_hub else '  # a folder on this machine'}\n"
            "from predict_onnx import answer  # cleans too; or: python predict_onnx.py --help\n\n"
            f"print(answer([{texts}]))\n"
        )


class OnnxInt8(Onnx):
    """The same graph, its weights in 8 bits."""

    relation = "quantized"
    promise = "99 % of the labels the same, and a loss of accuracy above one point excluded at 95 %"

    def write(self, source: Source, folder: Path) -> Written:
        from models.elsewhere.onnx_graph import GRAPH
        from models.elsewhere.onnx_int8 import quantise

        written = super().write(source, folder)
        (whole := folder / "whole").mkdir()
        for path in folder.glob(f"{GRAPH}*"):  # a large graph keeps its weights in another file
            path.rename(whole / path.name)
        quantise(whole / GRAPH, folder / GRAPH)
        shutil.rmtree(whole)
        notes = [
            *written.notes,
            "The weights of its products and its tables of embeddings have 8 bits each, in blocks "
            "of 32 with a factor of their own; it takes onnxruntime 1.23 or later.",
        ]
        return replace(written, notes=notes)

    def refuses(self, source: Source) -> str | None:
        if source.args.kind == "regression":
            return (
                "it answers with a number, of which nothing says how far 8 bits may move it: use "
                "--to onnx"
            )
        return super().refuses(source)

    def judge(self, parity: Parity) -> list[str]:
        lines = off_shapes(parity, float("inf"))
        if parity.equal is None or parity.right is None or parity.own_right is None:
            return [*lines, "no row has a label by which to judge it"]
        others = parity.rows - parity.equal
        if parity.equal < AGREE * parity.rows:
            line = (
                f"{others:,} of {parity.rows:,} rows are answered otherwise; at most "
                f"{1 - AGREE:.0%} may be"
            )
            if parity.rows < FEW:
                line += f", and of fewer than {FEW} a single one is more: ask for --rows {ENOUGH}"
            lines.append(line)
        return lines + may_lose(parity.own_right.astype(float), parity.right.astype(float))


def may_lose(before: np.ndarray, after: np.ndarray) -> list[str]:
    """Why a loss of accuracy above LOST is not excluded at 95 %, and how many rows would tell.
    `before` and `after` (N,): whether each row is right."""
    from engine.intervals import Z_975, paired_interval

    loss, low, high = paired_interval(before, after)
    if not (before != after).any():
        high = UNSEEN / len(before)  # no change among so many rows: a few in a thousand may
    if high <= LOST:
        return []
    line = (
        f"accuracy is {before.mean():.4f} before and {after.mean():.4f} in 8 bits, a loss of "
        f"{loss:.4f} (95 % {low:.4f} to {high:.4f}): one above {LOST:g} is not excluded"
    )
    spread = Z_975 * float((before - after).std())  # of the loss of one row, at 95 %
    if not spread:
        line += f" by {len(before):,} rows; it takes {math.ceil(UNSEEN / LOST)} (--rows)"
    elif loss < LOST:
        rows = math.ceil((spread / (LOST - loss)) ** 2)
        line += f" by {len(before):,} rows; at such a loss it would take about {rows:,} (--rows)"
    elif low < LOST:  # nor is it shown
        rows = math.ceil((spread / LOST) ** 2)
        line += f" by {len(before):,} rows, nor shown; ask for about {rows:,} (--rows {rows})"
    return [line]


def off_shapes(parity: Parity, most: float) -> list[str]:
    """Shapes of a batch at which the graph fails, or its logits are off by more than `most`."""
    return [
        f"at rows of shape {shape} " + (
            f"it does not answer: {off}" if isinstance(off, str) else
            f"logits are off by {off:.2g}; at most {most:g} is allowed"
        )
        for shape, off in parity.extra["shapes"].items() if isinstance(off, str) or not off <= most
    ]  # fmt: skip


def write_beside(source: Source, folder: Path) -> Decision:
    """Write all but the graph: the tokenizer that cuts and pads, how texts are read, the decision,
    a bag of n-grams where one answers beside, the programs. The decision."""
    from job.exporting.decided import write_rest
    from job.rows import clean_args
    from job.testing.decided import read_decision
    from models.elsewhere.merged import tokenizer_of
    from models.ngrams.fusion import FOLDER

    assert source.texts is not None
    length, side = source.texts.max_length, source.texts.truncation
    tokenizer = tokenizer_of(source.tokenizer, length, side)
    tokenizer.save_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(length, strategy="longest_first", direction=side)
    backend.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    backend.save(str(folder / "tokenizer.json"))
    decision = read_decision(source.folder.model, source.args)
    write_rest(decision, source, folder)
    weights = None
    if source.fusion is not None:
        shutil.copytree(source.folder.model / FOLDER, folder / FOLDER)
        weights = asdict(source.fusion.weights)
    reading = {
        "pairs": source.texts.pairs, "clean": asdict(clean_args(source.config)), "bag": weights,
    }  # fmt: skip
    save_text(folder / "reading.json", to_json(reading, indent=1) + "\n")
    for name, target in SHIPPED.items():
        (folder / target).parent.mkdir(exist_ok=True)
        shutil.copyfile(HOME / name, folder / target)
    return decision
