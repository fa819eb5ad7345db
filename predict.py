"""Use a finished run.

    python predict.py --run runs/imdb_lora "It was good." "Not a fan."
    python predict.py --run runs/imdb_lora --file reviews.jsonl --output out.jsonl
    cat reviews.txt | python predict.py --run runs/imdb_lora --json -

In Python:  from predict import load_run;  load_run("runs/imdb_lora")(["It was good."])
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from job.predictor import Prediction, Predictor


def load_run(run: str | Path, device: str | None = None, allow_code: bool = False) -> "Predictor":
    """The model of a finished run, ready to be called with a list of texts.

    Each text gives a Prediction: `label`, `probability`, `probabilities` by label name. Raises
    ValueError where `run` is no finished run.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from job.predictor import load_predictor

    return load_predictor(run, device, allow_code)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Predict with a finished run.",
        epilog='example: python predict.py --run runs/imdb_lora "It was good." "Not a fan."',
    )
    parser.add_argument("texts", nargs="*", help="texts to label; - reads one text a line")
    parser.add_argument("--run", required=True, help="folder of a finished run")
    parser.add_argument(
        "--file", type=Path, help=".jsonl, .csv, .tsv, .parquet or .txt file of texts"
    )
    parser.add_argument("--column", action="append", metavar="NAME",
                        help="column of the text in --file (default: as in the run); "
                        "twice for pairs of texts")  # fmt: skip
    parser.add_argument("--output", type=Path, help="write JSON lines here instead of printing")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: as in the run)")
    parser.add_argument("--allow-code", action="store_true", help="load a head from its own file")
    options = parser.parse_args(arguments)
    if bool(options.texts) == bool(options.file):
        parser.error("give texts, or - for standard input, or --file FILE: one of them")
    if "-" in options.texts and len(options.texts) > 1:
        parser.error("- reads standard input and stands alone; got other texts beside it")
    if options.column and not options.file:
        parser.error("--column names a column of --file; there is no --file")
    return options


def text_columns(run: str | Path, asked: list[str] | None) -> list[str]:
    """The columns that hold the text: as asked, or as the run was trained."""
    from configs.read import read_config

    text = read_config(Path(run) / "config.toml").data.text
    trained = [text] if isinstance(text, str) else list(text)
    if asked and len(asked) != len(trained):
        raise ValueError(
            f"--column names {len(asked)} columns; the run was trained on {len(trained)}: "
            f"{', '.join(trained)}"
        )
    return asked or trained


def pick(values: dict, columns: list[str], address: str) -> str | tuple[str, str]:
    """The text, or pair of texts, of one row of a file."""
    for column in columns:
        if not isinstance(values.get(column), str):
            raise ValueError(
                f"{address}: no text in column {column!r}; the row has {list(values)}. "
                "Name the right one with --column."
            )
    return values[columns[0]] if len(columns) == 1 else (values[columns[0]], values[columns[1]])


def read_texts(path: Path, columns: list[str]) -> Iterator[str | tuple[str, str]]:
    """Texts of a table (CSV, TSV, JSONL, Parquet) or, for .txt, one text a line.

    Raises ValueError naming file and line for a row that cannot be read.
    """
    from data.reading.rows import BadRow
    from data.tables import open_table

    if path.suffix == ".txt":
        yield from plain_lines(checked_lines(path))
        return
    for row in open_table(path, str(path)).rows(columns):
        if isinstance(row, BadRow):
            raise ValueError(f"{row.address}: {row.message}")
        yield pick(row.values, columns, row.address)


def checked_lines(path: Path) -> Iterator[str]:
    """The lines of a file. Raises ValueError naming the first that is no UTF-8."""
    from data.reading.lines import Lines

    lines = Lines(path)
    for line in lines:
        if lines.bad:
            raise ValueError(f"{path}: {lines.bad[0]}")
        yield line


def plain_lines(file: Iterable[str]) -> Iterator[str]:
    """One text a line; empty lines are passed over."""
    return (line.rstrip("\r\n") for line in file if line.strip())


def show(predictions: Iterable["Prediction"], output: TextIO, as_json: bool) -> None:
    """Write each prediction as soon as it is there."""
    from report.format import clean_line

    for prediction in predictions:
        if as_json:
            output.write(json.dumps(prediction.as_dict(), ensure_ascii=False) + "\n")
        else:
            shown = "" if prediction.probability is None else f" {prediction.probability:7.1%}"
            text = prediction.text
            shown_text = clean_line(text if isinstance(text, str) else " | ".join(text))
            output.write(f"{clean_line(prediction.label):>12}{shown}  {shown_text}\n")
        output.flush()


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 2 with one readable message for what a user can mend."""
    options = parse_arguments(arguments)
    try:
        predictor = load_run(options.run, options.device, options.allow_code)
        texts: Iterable[str | tuple[str, str]] = options.texts
        if options.file:
            texts = read_texts(options.file, text_columns(options.run, options.column))
        elif options.texts == ["-"]:
            texts = plain_lines(sys.stdin)
        if options.output is None:
            show(predictor.stream(texts), sys.stdout, options.json)
        else:
            write_file(predictor, texts, options.output)
    except (ValueError, OSError) as error:
        print(f"predict.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("predict.py: interrupted", file=sys.stderr)
        return 130
    return 0


def write_file(predictor: "Predictor", texts: Iterable[str | tuple[str, str]], path: Path) -> None:
    """JSON lines into `path`, which appears whole once the last one is written."""
    from tqdm import tqdm

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            show(tqdm(predictor.stream(texts), unit="text"), file, as_json=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
