"""What every way to fine-tune does on every architecture, as docs/methods-by-architecture.md.

    python -m benchmarks.architectures.methods           # writes it: some minutes on two cores
    python -m benchmarks.architectures.methods LoRA all  # these columns anew, the others as before

A new row of METHODS is a new column by itself. tests/architectures holds the page: six
architectures by default, all of them with `-m slow`.
"""

import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.architectures.cells import WAYS, Cell, make_subject, try_way
from benchmarks.architectures.configs import ARCHITECTURES, LANGUAGE
from models.methods import METHODS

DOC = Path(__file__).parents[2] / "docs" / "methods-by-architecture.md"
RUNS, PACKS = "runs", "packing"
Table = dict[str, dict[str, str]]  # model type -> way -> "runs", or why it does not
TEXT = """# Ways to fine-tune, by architecture

Every way of [methods.md](methods.md) on every architecture of [architectures.md](architectures.md),
each as a tiny random model. `python -m benchmarks.architectures.methods` writes this page; tests
hold it (`tests/architectures`, all of it with `-m slow`).

**runs** means that the model answers at first as without the method ({changes} change that, and
are held to it); that two steps move what the recipe names and no other parameter; that a model
built anew goes on from the checkpoint of the first step to the same bits; and that the export,
opened again in another process, gives the same logits to the bit.

A number is the reason, said before step 1, why a cell does not run.

"""
CHAT = """
## Chat

The same of language models (`task.kind = "chat"`), by the loss of every token's next one.
**packing**: another conversation before it in a row moves nothing of a conversation, which is there
what it is alone.

"""


def examine(model_type: str, ways: list[str], folder: Path, chat: bool = False) -> dict[str, Cell]:
    """Some cells of an architecture, for `chat` of its language model, tried in an empty folder."""
    subject = make_subject(model_type, folder, chat)
    cells = {PACKS: Cell(subject.refused or subject.packs)} if chat else {}
    for number, way in enumerate(ways):
        place = folder / f"way-{number}"
        place.mkdir()
        cells[way] = try_way(subject, way, place)
    return cells


def word(model_type: str, cell: Cell) -> str:
    """What a cell of the table says."""
    return RUNS if cell.refused is None else general(model_type, cell.refused)


def general(model_type: str, refused: str) -> str:
    """A refusal without what is this one architecture's: its name, numbers of layers, modules."""
    line = " ".join(refused.split()).replace("|", "/")
    line = re.sub(r"^model\.source is of type '[^']+', which ", "it ", line)
    line = re.sub(rf"\b{re.escape(model_type)}: ", "", line)
    line = re.sub(rf"'{re.escape(model_type)}' (?=\w)", "it ", line)
    line = re.sub(rf"\b{re.escape(model_type)} (?=\w)", "it ", line)
    line = re.sub(r"\d\.\de[+-]\d\d apart", "apart", line)
    line = re.sub(r"\b\d+ of its \d+ layers\b", "some of its layers", line)
    line = re.sub(r" \([\w.]+\)", "", line)
    line = re.sub(r"\(1, \d+\)", "(1, N)", line)
    return re.sub(r"\blayer \d+\b", "a layer", line)


def render(table: Table, chats: Table) -> str:
    """The page, of classifiers and of language models."""
    changes = " and ".join(k for k, m in METHODS.items() if not m.identity)
    return TEXT.format(changes=changes) + render_table(table) + CHAT + render_table(chats)


def render_table(table: Table) -> str:
    """A table and its reasons: architectures with the same cells are one row."""
    ways = list(dict.fromkeys(way for cells in table.values() for way in cells))
    ways.sort(key=[*WAYS, PACKS].index)
    numbers: dict[str, int] = {}
    for model_type in sorted(table):
        for cell in (table[model_type][way] for way in ways):
            if cell != RUNS:
                numbers.setdefault(cell, len(numbers) + 1)
    rows: dict[tuple[str, ...], list[str]] = {}
    for model_type in sorted(table):
        cells = (table[model_type][way] for way in ways)
        shown = tuple(RUNS if cell == RUNS else str(numbers[cell]) for cell in cells)
        rows.setdefault(shown, []).append(model_type)
    lines = [f"| architectures | {' | '.join(ways)} |", "|:--" * (len(ways) + 1) + "|"]
    for shown, types in sorted(rows.items(), key=lambda row: -len(row[1])):
        lines.append(f"| {', '.join(types)} | {' | '.join(shown)} |")
    reasons = [f"{number}. {reason}" for reason, number in numbers.items()]
    return "\n".join([*lines, "", *reasons]) + "\n"


def read() -> tuple[Table, Table]:
    """The page as it stands, of classifiers and of language models; empty where there is none."""
    text = DOC.read_text(encoding="utf-8") if DOC.is_file() else ""
    classifiers, _, chats = text.partition(CHAT)
    return read_table(classifiers), read_table(chats)


def read_table(text: str) -> Table:
    """What render_table wrote."""
    lines = text.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    reasons = dict(line.split(". ", 1) for line in lines if re.match(r"\d+\. ", line))
    ways = rows[0][1:] if rows else []
    return {
        model_type: {way: reasons.get(c, c) for way, c in zip(ways, cells, strict=True)}
        for types, *cells in rows[1:]
        for model_type in types.split(", ")
    }


def examine_some(
    ways: list[str], subjects: list[tuple[str, bool]]
) -> list[tuple[str, bool, dict[str, Cell]]]:
    """examine for several, each with whether it is to chat, in a process of their own."""
    import torch

    torch.set_num_threads(1)
    results = []
    for model_type, chat in subjects:
        with TemporaryDirectory() as folder:
            try:
                cells = examine(model_type, ways, Path(folder), chat)
            except Exception as error:  # the others are still to be tried
                named = [*ways, *([PACKS] if chat else [])]
                cells = {way: Cell(faults=[f"{type(error).__name__}: {error}"]) for way in named}
        results.append((model_type, chat, cells))
        faults = [f"{way}: {fault}" for way, cell in cells.items() for fault in cell.faults]
        print(model_type, *faults, sep="\n  ", flush=True)
    return results


def main(ways: list[str]) -> None:
    """Write the page. Raises SystemExit for a column that is none, and where anything is wrong."""
    if unknown := [way for way in ways if way not in WAYS]:
        raise SystemExit(f"no column {', '.join(unknown)}; there are {', '.join(WAYS)}")
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    tables = read()
    subjects = [(name, False) for name in ARCHITECTURES] + [(name, True) for name in LANGUAGE]
    shares = [subjects[first::2] for first in range(2)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        shown = partial(examine_some, ways or list(WAYS))
        results = [result for share in pool.map(shown, shares) for result in share]
    if wrong := [name for name, _, cells in results if any(c.faults for c in cells.values())]:
        raise SystemExit(f"something is wrong with {', '.join(wrong)}: see above")
    for model_type, chat, cells in results:
        tables[chat].setdefault(model_type, {}).update(
            {way: word(model_type, cell) for way, cell in cells.items()}
        )
    DOC.write_text(render(*tables), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
