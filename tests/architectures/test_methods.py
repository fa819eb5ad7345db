"""Every way to fine-tune runs on every architecture, or is refused with its reason."""

import pytest
import torch

from benchmarks.architectures import cells
from benchmarks.architectures.cells import WAYS, make_subject, try_way
from benchmarks.architectures.configs import ARCHITECTURES, LANGUAGE
from benchmarks.architectures.methods import DOC, PACKS, examine, read, render, word
from benchmarks.architectures.reload import Reloader
from models import adapt, build
from models.methods import adapter

# layers that are one, a decoder, an encoder with a decoder, no attention and padding that is read
FEW = ("albert", "fnet", "gpt2", "t5")
# language models: one that writes from left to right, one that cannot
FEW_CHATS = ("llama", "bert")


@pytest.fixture(scope="module")
def reloader():
    """A process apart, in which exports are opened again."""
    process = Reloader()
    yield process
    process.close()


@pytest.fixture(autouse=True)
def one_thread():
    """As in the process apart: more of them round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_page_has_a_cell_for_every_way_on_every_architecture():
    table, chats = read()
    assert set(table) == set(ARCHITECTURES)
    assert all(set(cells) == set(WAYS) for cells in table.values())
    assert set(chats) == set(LANGUAGE)
    assert all(set(cells) == {*WAYS, PACKS} for cells in chats.values())
    assert DOC.read_text(encoding="utf-8") == render(table, chats)


def check_ways(model_type, tmp_path, reloader, chat=False):
    """The page's words for an architecture, its exports opened in this process and in another."""
    seen = examine(model_type, list(WAYS), tmp_path, chat)
    assert {way: cell.faults for way, cell in seen.items() if cell.faults} == {}
    assert {way: word(model_type, cell) for way, cell in seen.items()} == read()[chat][model_type]
    exports = [cell.export for cell in seen.values() if cell.export]
    assert [reloader.faults(export) for export in exports] == [[]] * len(exports)


@pytest.mark.parametrize("model_type", FEW)
def test_ways_do_on_an_architecture_what_the_page_says(model_type, tmp_path, reloader):
    check_ways(model_type, tmp_path, reloader)


@pytest.mark.parametrize("model_type", FEW_CHATS)
def test_ways_do_on_a_language_model_what_the_page_says(model_type, tmp_path, reloader):
    check_ways(model_type, tmp_path, reloader, chat=True)


def test_what_must_not_be_is_told(tmp_path, monkeypatch):
    """Each promise broken in turn: start, what moves, going on, the export."""
    subject = make_subject("albert", tmp_path)

    def faults(way="adapter"):
        (place := tmp_path / str(len(list(tmp_path.iterdir())))).mkdir()
        return try_way(subject, way, place).faults

    def broken(module, name, stand_in):
        with monkeypatch.context() as patch:
            plain = getattr(module, name)
            patch.setattr(module, name, lambda *words: stand_in(plain, *words))
            return faults()

    def draw_up(plain, self, layer, name, seed):
        adapter = plain(self, layer, name, seed)
        torch.nn.init.eye_(adapter.up.weight)
        return adapter

    def train_more(plain, model, everything, whole):
        plain(model, everything, [*whole, "albert.embeddings.word_embeddings"])

    def forget(plain, folder, model, optimizer):
        optimizer.state.clear()

    assert faults() == []
    (start,) = broken(adapter.Adapter, "_make", draw_up)
    assert "from those without it" in start
    assert broken(adapt, "choose_trainable", train_more) == [
        "moved: albert.embeddings.word_embeddings.weight"
    ]
    (resumed,) = broken(cells, "load_optimizer", forget)
    assert "resumed, " in resumed
    monkeypatch.setattr(cells, "load_exported", lambda folder, allow_code: [build_plain(subject)])
    (opened,) = faults()
    assert "opened again" in opened


def build_plain(subject):
    """The architecture's model as it is."""
    return build.build_model(subject.args("all"), subject.tokenizer, cells.SEED).model


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("model_type", [name for name in ARCHITECTURES if name not in FEW])
def test_ways_do_on_every_architecture_what_the_page_says(model_type, tmp_path, reloader):
    check_ways(model_type, tmp_path, reloader)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("model_type", [name for name in LANGUAGE if name not in FEW_CHATS])
def test_ways_do_on_every_language_model_what_the_page_says(model_type, tmp_path, reloader):
    check_ways(model_type, tmp_path, reloader, chat=True)
