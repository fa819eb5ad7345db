"""Whole runs whose frozen part is computed once and kept: as without, but for the time."""

import os
import shutil

import pytest
import torch
from conftest import ROOT, figures, own_head, weights

import train
from configs.read import read_config
from data.cache import cache_root
from files.write import LEFTOVER
from job.tasks.table import prepare
from job.training import cached as cached_states
from tests.killed import kill_after_save, kill_between

NO_LORA = ["--unset", "lora", "model.dropout=0"]
HEAD = own_head("(self.out(hidden).exp() * mask.unsqueeze(-1)).sum(1).log()")
HEADS = {
    "linear": ["head.kind=linear", "head.dropout=0.3"],
    "mlp": ["head.kind=mlp", "head.pool=cls", "head.dropout=0.3"],
    "native": ["head.kind=native", "--unset", "head.pool"],
    "own": ["head.kind={head}:Head", "--unset", "head.pool", "--allow-code"],
}


@pytest.fixture(autouse=True)
def cache(new_cache):
    return new_cache / "kept"


@pytest.fixture
def start(recipe, tmp_path, capsys):
    """start("name", "setting=value", …) -> (run folder, what was printed)."""
    (tmp_path / "head.py").write_text(HEAD, encoding="utf-8")
    path = recipe(speed={"native": "off"}, eval={"baseline": False})

    def run(name, *words, code=0):
        words = [word.replace("{head}", str(tmp_path / "head.py")) for word in words]
        assert train.main(["--config", str(path), *words, f"run.name={name}"]) == code
        captured = capsys.readouterr()
        return tmp_path / "runs" / name, captured.out + captured.err

    return run


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("what", ["head", "last:1"])
def test_a_run_is_that_without_the_cache(start, cache, head, what):
    words = [*NO_LORA, *HEADS[head], f"model.train={what}"]
    first, said = start("first", *words)
    assert "train computed, validation computed, test computed" in said
    assert "dropout below that place is off" in " ".join(said.split())
    assert len(list(cache.iterdir())) == 3
    plain, said = start("plain", *words, "model.cache=off")
    assert "cache of the frozen part: none, as configured" in said
    for got, expected in zip(figures(first), figures(plain), strict=True):
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-5)
    got, expected = weights(first), weights(plain)
    assert got.keys() == expected.keys()
    assert all(torch.allclose(got[n], expected[n], atol=1e-4) for n in got)
    again, said = start("again", *words)
    assert "train hit, validation hit, test hit" in said
    assert figures(again) == figures(first)
    assert all(torch.equal(tensor, got[name]) for name, tensor in weights(again).items())


@pytest.mark.parametrize("what", ["head", "last:1"])
def test_a_killed_run_goes_on_to_the_same_bits(start, cache, what):
    words = ["--unset", "lora", f"model.train={what}", "run.save_every=1", "run.keep=50"]
    whole, _ = start("whole", *words)
    kill_after_save(3, lambda: start("killed", *words))
    shutil.rmtree(cache)  # and the cache was emptied meanwhile
    killed, said = start("killed", *words, "--resume")
    assert "resuming from" in said
    assert figures(killed) == figures(whole)
    first, second = weights(whole), weights(killed)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_killed_while_states_are_computed_a_run_begins_anew(start, cache):
    words = [*NO_LORA, "model.train=last:1"]
    whole, _ = start("whole", *words)
    shutil.rmtree(cache)
    kill_between(cached_states, "compute_states", 2, lambda: start("killed", *words))
    (left,) = cache.iterdir()  # half of the training rows' states, under no key
    assert LEFTOVER.fullmatch(left.name)
    killed, said = start("killed", *words, "--resume")
    assert "train computed, validation computed, test computed" in said
    assert figures(killed) == figures(whole)
    first, second = weights(whole), weights(killed)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_begun_with_kept_states_does_not_go_on_without(start, cache, monkeypatch):
    words = ["--unset", "lora", "model.train=head", "run.save_every=1"]
    run, _ = start("one", *words)
    (run / "result.json").unlink()
    shutil.rmtree(cache)
    monkeypatch.setattr(cached_states, "MOST_BYTES", 0)
    _, said = start("one", *words, "--resume", code=2)
    assert "kept: 'the mean of each text, out of the frozen backbone, float32' then" in said


@pytest.mark.parametrize("damage", ["bit", "cut", "half-written"])
def test_damaged_states_are_computed_again(start, cache, damage):
    words = [*NO_LORA, "model.train=last:1", "train.max_steps=30"]
    first, _ = start("first", *words)
    largest = max(cache.glob("*/states.bin"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
    largest.write_bytes(content if damage == "bit" else content[:-1])
    if damage == "half-written":
        (largest.parent / "manifest.json").unlink()
    second, said = start("second", *words)
    assert "train computed, validation hit, test hit" in said
    assert figures(second) == figures(first)


def test_another_key_is_not_answered(start, recipe, cache):
    words = [*NO_LORA, "model.train=last:1"]
    start("first", *words)
    for change in ("data.max_length=16", "model.train=head", "data.split_seed=3", "head.kind=mlp"):
        settings = [*words[2:], change, "speed.native=off"]
        job = prepare(read_config(recipe(), settings, ["lora"]), False)
        assert bool(job.cached.missing) == (change != "head.kind=mlp"), change


def test_what_computes_the_states_is_in_their_key(recipe, monkeypatch):
    def folders():
        settings = [*NO_LORA[2:], "model.train=last:1", "speed.native=off"]
        return prepare(read_config(recipe(), settings, ["lora"]), False).cached.folders

    first = folders()
    monkeypatch.setattr(cached_states, "AT_ONCE", 4)
    second, hashed = folders(), []
    assert second["train"] != first["train"]
    monkeypatch.setattr(cached_states, "code_digest", lambda *places: hashed.extend(places) or "x")
    assert folders()["train"] != second["train"]
    assert {ROOT / "models", ROOT / "job/training/cached.py", ROOT / "engine/precision.py"} <= {
        *hashed
    }
    assert all(place.exists() for place in hashed)


def test_where_rows_are_read_once_nothing_is_kept(start, cache):
    _, said = start("once", "--unset", "lora", "model.train=head", "train.epochs=1")
    assert "none, 1 epoch with evaluations and the test read 60 rows" in " ".join(said.split())
    assert not cache.exists()


@pytest.mark.parametrize("words", [["model.train=last:1"], ["model.train=head", *HEADS["own"]]])
def test_no_room_is_said_with_the_arithmetic(start, cache, monkeypatch, words):
    monkeypatch.setattr(cached_states, "MOST_BYTES", 1000)
    _, said = start("full", "--unset", "lora", *words)
    assert "tokens would take" in " ".join(said.split())
    assert not cache.exists()


@pytest.mark.parametrize("method", ["lora.layers=[0, 1]", "lora.layers=[1, 1]"])
def test_adapters_on_the_first_layer_leave_nothing_to_keep(start, method):
    _, said = start("lora", method)
    assert ("cache of the frozen part" in said) == (method == "lora.layers=[1, 1]")


def test_a_model_that_does_not_run_from_the_cut_runs_whole(start, monkeypatch):
    def fail(*words):
        raise TypeError("layers want more")

    monkeypatch.setattr("models.cut.Cut.begin", fail)
    _, said = start("whole", *NO_LORA, "model.train=last:1")
    assert "this model does not run from the cut (TypeError: layers want more)" in " ".join(
        said.split()
    )


def test_a_dry_run_computes_and_writes_nothing(start, cache):
    _, said = start("dry", "--unset", "lora", "model.train=head", "--dry-run")
    assert "train miss, validation miss, test miss" in " ".join(said.split())
    assert not cache.exists()


def test_the_limit_of_the_cache_holds_for_kept_states(start, cache, monkeypatch):
    start("first", *NO_LORA, "model.train=last:1")
    for folder in cache.iterdir():
        os.utime(folder, (1, 1))
    monkeypatch.setenv("OPENLOOP_CACHE_LIMIT", "1")
    before = {path.name for path in cache.iterdir()}
    start("second", *NO_LORA, "model.train=head")
    assert not before & {path.name for path in cache.iterdir()}
    assert cache_root() == cache.parent
