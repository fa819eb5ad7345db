"""Rows a second and size of a finished run beside its graphs for onnxruntime, whole and in 8 bits.

    python export.py --run runs/imdb_quick --to onnx
    python export.py --run runs/imdb_quick --to onnx-int8
    python benchmarks/exports.py --run runs/imdb_quick                 also writes exports.md

All take turns in one process, on the same texts of exactly so many tokens, and each round counts as
ratios, so a machine whose speed drifts slows all of them. An export that was rejected is measured
too, and named so.
"""

import argparse
import importlib.util
import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import child  # noqa: F401  makes the project importable
from latency import Ask, take_turns
from machine import processor

if TYPE_CHECKING:
    from job.predicting.predictor import Predictor

PAGE = Path(__file__).with_name("exports.md")
FORMATS = ("onnx", "onnx-int8")
SHORT = "It was good."
HEAD = (
    "# A run beside its exports\n\n`python benchmarks/exports.py --run RUN` writes this page.\n\n"
)


def open_program(folder: Path, threads: int) -> Any:
    """The predict_onnx.py of an export, its session with so many threads."""
    import onnxruntime

    name = f"predict_{folder.name}"
    spec = importlib.util.spec_from_file_location(name, folder / "predict_onnx.py")
    assert spec is not None
    assert spec.loader is not None
    program: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # threads that spin on between two answers would take the cores of whoever's turn is next
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    program.GRAPH = onnxruntime.InferenceSession(folder / "model.onnx", options)
    return program


def find_exports(run: Path) -> dict[str, Path]:
    """The graphs that the run was exported to, by name."""
    folders = {}
    for name in FORMATS:
        for folder in (run / "exports" / name, run / "exports" / f"{name}.rejected"):
            if (folder / "model.onnx").is_file():
                folders[folder.name] = folder
                break
    return folders


def words_of(run: Path) -> list[str]:
    """The words of the run's first test rows. Raises ValueError where they are no texts."""
    words: list[str] = []
    with (run / "test_predictions.jsonl").open(encoding="utf-8") as file:
        for line in islice(file, 64):
            text = json.loads(line)["text"]
            if not isinstance(text, str):
                raise ValueError(f"{run} is on pairs of texts, which are not measured here")
            words += text.split()
    return words


def texts_of(tokenizer: Any, words: list[str], tokens: int, rows: int) -> list[str]:
    """Texts of at least so many tokens: each begins elsewhere in the words, and goes round."""
    texts = []
    for row in range(rows):
        start = row * len(words) // rows
        turned = words[start:] + words[:start]
        times = tokens // len(words) + 1
        texts.append(" ".join((turned * times)[:tokens]))  # a word has a token or more
    assert all(len(tokenizer(text)["input_ids"]) >= tokens for text in texts)
    return texts


def contestants(
    predictor: "Predictor", programs: dict[str, Any], texts: list[str], tokens: int
) -> dict[str, Ask]:
    """Whoever answers, openloop first, all of them at most so many tokens of each text."""
    longer = replace(predictor, length=replace(predictor.length, max_length=tokens))
    asks: dict[str, Ask] = {"openloop": lambda: longer(texts)}
    for name, program in programs.items():
        program.TOKENS.enable_truncation(tokens)

        def ask(program: Any = program) -> Any:
            program.TOKENS.enable_truncation(tokens)
            return program.decide(program.ask(texts))

        asks[name] = ask
    return asks


def line_of(name: str, size: int, cells: list[str]) -> str:
    """A row of the table."""
    return f"| {name} | {size / 2**20:.1f} MiB | {' | '.join(cells)} |"


def measure(run: Path, rows: int, rounds: int) -> str:
    """The table."""
    import torch

    from openloop import load_run
    from job.exporting.place import size_of
    from job.folder import Folder

    predictor = load_run(run, device="cpu")
    folders = find_exports(run)
    programs = {
        name: open_program(folder, torch.get_num_threads()) for name, folder in folders.items()
    }
    words = words_of(run)
    limit = predictor.tokenizer.model_max_length
    columns: dict[str, list[str]] = {name: [] for name in ("openloop", *programs)}
    heads = []
    for tokens in (min(128, limit), min(512, limit)):
        heads.append(f"rows/s at {tokens}")
        texts = texts_of(predictor.tokenizer, words, tokens, rows)
        times = take_turns(contestants(predictor, programs, texts, tokens), rounds)
        for name, seconds in times.items():
            ratio = median(base / own for own, base in zip(seconds, times["openloop"], strict=True))
            columns[name].append(f"{rows / median(seconds):.1f} (× {ratio:.2f})")
    heads.append("one short text, ms")
    times = take_turns(contestants(predictor, programs, [SHORT], 128), rounds * 10)
    for name, seconds in times.items():
        columns[name].append(f"{median(seconds) * 1e3:.1f}")
    sizes = {"openloop": size_of(Folder(run).model)} | {
        name: size_of(folder) for name, folder in folders.items()
    }
    lines = [f"| who | folder | {' | '.join(heads)} |", "| :-- | --: | --: | --: | --: |"]
    lines += [line_of(name, sizes[name], cells) for name, cells in columns.items()]
    return "\n".join(lines) + (
        f"\n\nBy {processor()}, {torch.get_num_threads()} threads; openloop in "
        f"{predictor.precision.dtype}. {rows} rows at a time, the median of {rounds} rounds in "
        "turn; in brackets the median of the rounds' ratios to openloop.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--rows", type=int, default=64, help="texts at a time")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each")
    options = parser.parse_args()
    try:
        table = measure(options.run, options.rows, options.rounds)
    except ValueError as error:
        print(f"exports.py: {error}", file=sys.stderr)
        return 2
    print(table, end="")
    PAGE.write_text(HEAD + table, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
