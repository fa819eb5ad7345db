"""Every architecture with a sequence classifier trains, or is refused with its reason."""

import pytest
import transformers

from benchmarks.architectures.check import check, make_folder, make_rows
from benchmarks.architectures.configs import ARCHITECTURES
from benchmarks.architectures.reload import Reloader
from benchmarks.architectures.table import DOC, examine, render
from job.tasks.load import load_predictor
from models.fast.cpu.compiler import find_compiler

# one of each kind: encoder on fast paths, decoder without pad token, encoder and decoder, adapted
# weights read by the model itself, padding that is read, relative positions, refusal
FEW = ("albert", "deberta", "fnet", "gpt2", "layoutlm", "longformer", "modernbert", "qwen2",
       "roberta", "t5", "xlm", "xlnet")  # fmt: skip


@pytest.fixture(scope="module")
def reloader():
    """A process apart, in which runs are loaded again."""
    process = Reloader()
    yield process
    process.close()


def rows():
    """The lines of the checked-in table, by model type."""
    lines = DOC.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| model type")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in rows}


def test_the_table_has_a_row_for_every_architecture_and_counts_them():
    assert set(rows()) == set(ARCHITECTURES)
    text = DOC.read_text(encoding="utf-8")
    assert text == render(list(rows().values()), transformers.__version__)


@pytest.mark.parametrize("model_type", FEW)
def test_an_architecture_learns_with_lora_as_the_table_says(model_type, tmp_path, reloader):
    source = make_folder(model_type, tmp_path / "model")
    seen = check(source, make_rows(tmp_path / "rows.csv"), tmp_path / "runs", "lora")
    assert [*seen.faults, *(reloader.faults(seen.run) if seen.run else [])] == []
    cells = rows()[model_type].split(" | ")
    assert cells[1] == ("no" if seen.refused else "yes")
    if not seen.refused:
        assert cells[4] == ("in parts" if seen.apart else "yes")
        assert set(seen.paths) <= {*cells[6].split(", "), "none"}


def test_where_texts_run_apart_the_python_of_the_card_asks_them_alone(tmp_path):
    source = make_folder("fnet", tmp_path / "model")
    seen = check(source, make_rows(tmp_path / "rows.csv"), tmp_path / "runs", "full")
    card = (seen.run / "README.md").read_text(encoding="utf-8")
    snippet = next(part for part in card.split("```python\n") if "from_pretrained" in part)
    for text in ("good", "the film was a superb story"):
        names = {}
        exec(snippet.partition("```")[0].replace("It was good.", text), names)
        (answer,) = load_predictor(seen.run, "cpu", False, None)([text])
        assert names["texts"] == [text]
        asked = names["logits"].softmax(-1).max().item()
        assert asked == pytest.approx(answer.probability, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(400)  # the first one may build the kernels on a busy machine
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture_does_what_the_table_says(model_type, tmp_path, reloader):
    row, faults = examine(model_type, tmp_path, reloader)
    assert faults == []
    if find_compiler() is None:  # then some fast paths are left out
        seen, written = (line.split(" | ") for line in (row, rows()[model_type]))
        seen[6] = written[6]
        assert seen == written
    else:
        assert row == rows()[model_type]
