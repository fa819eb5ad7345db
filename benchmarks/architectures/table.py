"""What every architecture does, as docs/architectures.md: one row each.

    python -m benchmarks.architectures.table      # writes it: some ten minutes on two cores

tests/architectures holds it: the rows of a dozen by default, all of them with `-m slow`.
"""

import os
import re
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.architectures.check import VARIANTS, Seen, check, make_folder, make_rows
from benchmarks.architectures.configs import ARCHITECTURES
from benchmarks.architectures.reload import Reloader
from models.fast.map import PATHS

DOC = Path(__file__).parents[2] / "docs" / "architectures.md"
HEAD = (
    "| model type | LoRA | all weights | last:1 | padded as alone | recomputation | fast paths "
    "| why not |",
    "|:--|:--|:--|:--|:--|:--|:--|:--|",
)  # fmt: skip
TEXT = """# Architectures

Every architecture for which transformers {version} has a sequence classifier, tried as a tiny
random model with a tokenizer of its kind. Of {count} types {runs} run and {refused} are refused,
with the reason, before step 1. `python -m benchmarks.architectures.table` writes this table; tests
hold it (`tests/architectures`, all rows with `-m slow`).

- **LoRA** (on all linear layers), **all weights**, **last:1**: three steps of two micro-batches,
  test, export, and the same answers from another process. Each adapter and each trained parameter
  has moved, or the plan says that nothing reaches it.
- **padded as alone**: a text has the same logits alone, without padding, and in a padded batch.
  "in parts": this architecture reads padding, or minds its neighbours' end tokens, so rows of one
  kind run together (`models/apart.py`): right, and slower.
- **recomputation**: `model.activation_checkpointing` gives the same gradients.
- **fast paths**: by their names in `models/fast/map.py`, on a CPU in fp32 with a C++ compiler.

A head of ours (`head.kind = "linear"` or `"mlp"`) goes on each that runs, but for those with an
encoder and a decoder and for Perceiver, which are refused with the reason.

All of them answer a short text and one that is too long, and refuse an empty one. What is taken on
trust: that a small random model stands for the published one.

"""


def examine(model_type: str, folder: Path, reloader: Reloader) -> tuple[str, list[str]]:
    """The row of an architecture, and what is wrong with it."""
    rows = make_rows(folder / "rows.csv")
    source = make_folder(model_type, folder / "model")
    seen, faults = [], []
    for variant in VARIANTS:
        one = check(source, rows, folder / "runs", variant)
        own = [*one.faults, *(reloader.faults(one.run) if one.run else [])]
        faults += [f"{model_type}, {variant}: {fault}" for fault in own]
        seen.append(one)
    return render_row(model_type, seen), faults


def render_row(model_type: str, seen: list[Seen]) -> str:
    """A line of the table."""
    whole = {one.refused for one in seen}
    names = {one.variant: one for one in seen}
    cells = ["no" if names[variant].refused else "yes" for variant in ("lora", "full", "last:1")]
    runs = [one for one in seen if not one.refused]
    padded = "no"
    if runs:
        padded = "in parts" if any(one.apart for one in runs) else "yes"
    paths = {path for one in runs for path in one.paths}
    reasons = [short_reason(one.refused) for one in seen if one.refused]
    if len(whole) == 1 and len(seen) == len(reasons):  # the architecture itself
        reasons = reasons[:1]
    cells += [padded, "no" if names["checkpointing"].refused else "yes"]
    cells += [", ".join(path for path in PATHS if path in paths) or "none"]
    return f"| {model_type} | {' | '.join(cells)} | {'; '.join(dict.fromkeys(reasons))} |"


def short_reason(refused: str) -> str:
    """A refusal in one cell."""
    line = " ".join(refused.split()).replace("|", "/")
    return re.sub(r"^model\.source is of type '[^']+', which ", "", line)


def render(rows: list[str], version: str) -> str:
    """The document, of rows in any order."""
    counts = Counter("yes" in row.split(" | ")[1:4] for row in rows)
    runs, refused = counts[True], counts[False]
    text = TEXT.format(version=version, count=len(rows), runs=runs, refused=refused)
    return text + "\n".join([*HEAD, *sorted(rows)]) + "\n"


def examine_some(model_types: list[str]) -> list[tuple[str, list[str]]]:
    """examine for several, in a process of their own."""
    import torch

    torch.set_num_threads(1)
    reloader, results = Reloader(), []
    for model_type in model_types:
        with TemporaryDirectory() as folder:
            try:
                results.append(examine(model_type, Path(folder), reloader))
            except Exception as error:  # the others are still to be tried
                results.append((model_type, [f"{model_type}: {type(error).__name__}: {error}"]))
        print(results[-1][0], *results[-1][1], sep="\n  ", flush=True)
    reloader.close()
    return results


def main() -> None:
    """Write the document. Raises SystemExit where anything is wrong."""
    from transformers import __version__

    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    shares = [list(ARCHITECTURES[first::2]) for first in range(2)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        results = [result for share in pool.map(examine_some, shares) for result in share]
    if faults := [fault for _, more in results for fault in more]:
        raise SystemExit("\n".join(faults))
    DOC.write_text(render([row for row, _ in results], __version__), encoding="utf-8")


if __name__ == "__main__":
    main()
