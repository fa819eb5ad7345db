"""The compiled kernels: the same results as the plain ones, and how they are built."""

import json
import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.fast import native
from models.fast.kernels import PlainKernels
from models.fast.masks import Draw, make_draw
from models.fast.native import NativeKernels, build, find_compiler, library_path, load_native
from models.fast.speed import choose_kernels

ROOT = Path(__file__).parents[2]
WIDTHS = [1, 7, 31, 33, 64, 250]
PLAIN = PlainKernels()
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler on PATH")


@pytest.fixture
def kernels(native_kernels):
    """Here only the compiled ones; the plain ones are what they are held against."""
    return native_kernels


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("OPENLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "native"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """compiler(body): make $CXX a shell script; $target is the file that it should write."""

    def write(body):
        path = tmp_path / "own-c++"
        find = 'while [ "$1" != "-o" ]; do shift; done; target="$2"'
        path.write_text(f"#!/bin/sh\n{find}\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(path))

    return write


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def scores_and_draw(keys, p, heads=3, queries=5):
    """(scores, grad, lse, draw): lse and draw.rows are slices, as attention.py hands them over."""
    torch.manual_seed(keys)
    scores, grad = torch.randn(2, heads, queries, keys)
    lse = torch.zeros(heads + 1, queries + 6)
    ids = torch.arange(lse.numel()).view(lse.shape)
    draw = make_draw(p, ids, keys) if p else None
    part = (slice(1, None), slice(4, 4 + queries))
    if draw is not None:
        draw = Draw(draw.rows[part], draw.columns, draw.threshold, draw.scale)
    return scores * 3, grad, lse[part], draw


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 2**-16, 0.99])
def test_drop_gives_the_plain_bits(kernels, width, dtype, p):
    torch.manual_seed(width)
    x = torch.randn(2, 50, width).to(dtype)
    draw = make_draw(p, torch.arange(100).view(2, 50) * 977, width)
    found = kernels.drop(x, draw)
    assert found.dtype == dtype
    assert torch.equal(found, PLAIN.drop(x, draw))
    assert p < 0.01 or (found == 0).any()


def test_drop_takes_rows_and_values_that_are_not_contiguous(kernels):
    x, ids = torch.randn(12, 7).T, torch.arange(14)[::2]
    draw = make_draw(0.4, ids, 12)
    rows = draw.rows.repeat_interleave(2)[::2]
    strided = Draw(rows, draw.columns, draw.threshold, draw.scale)
    assert torch.equal(kernels.drop(x, strided), PLAIN.drop(x, draw))


@pytest.mark.parametrize("keys", WIDTHS)
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_softmax_and_dropout_equal_the_plain_ones(kernels, keys, p):
    scores, _, lse, draw = scores_and_draw(keys, p)
    expected = PLAIN.softmax_drop(scores.clone(), lse.clone(), 0.7, draw)
    found = kernels.softmax_drop(scores.clone(), lse, 0.7, draw)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(lse, torch.logsumexp(0.7 * scores, -1), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("keys", WIDTHS)
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_backward_of_softmax_and_dropout_equals_the_plain_one(kernels, keys, p):
    scores, grad, lse, draw = scores_and_draw(keys, p)
    kernels.softmax_drop(scores.clone(), lse, 0.7, draw)
    both = [
        k.softmax_drop_backward(scores.clone(), grad.clone(), lse, 0.7, draw, torch.float32)
        for k in (kernels, PLAIN)
    ]
    for found, expected in zip(*both, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("keys", WIDTHS)
def test_backward_in_bf16_rounds_the_fp32_one(kernels, keys):
    scores, grad, lse, draw = scores_and_draw(keys, 0.1)
    kernels.softmax_drop(scores.clone(), lse, 0.7, draw)
    low, exact = (
        kernels.softmax_drop_backward(scores.clone(), grad.clone(), lse, 0.7, draw, dtype)
        for dtype in (torch.bfloat16, torch.float32)
    )
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(low, exact, strict=True))


@pytest.mark.parametrize("shift", [0.0, 4e4, -4e4])
def test_softmax_of_huge_scores_is_finite(kernels, shift):
    scores = torch.tensor([[[3e4, -3e4, 2.9e4, 0.0]]]) + shift
    for k in (kernels, PLAIN):
        found = k.softmax_drop(scores.clone(), torch.zeros(1, 1), 1.0, None)
        assert found.tolist() == [[[1, 0, 0, 0]]]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the widths are those of x86")
def test_vector_width_is_what_the_instruction_set_promises(kernels):
    expected = native.WIDTHS.get(torch.backends.cpu.get_cpu_capability())
    if expected is None:
        pytest.skip("neither AVX2 nor AVX-512 here")
    assert kernels.vector_width() == expected


@needs_compiler
@pytest.mark.skipif(os.cpu_count() == 1, reason="one core")
def test_loops_use_all_threads_and_give_the_same_bits_with_each_number(kernels):
    """In a process of its own: this one is held to one thread."""
    code = """if True:
        import json, torch
        from models.fast.masks import make_draw
        from models.fast.native import load_native
        kernels, _ = load_native()
        usual, found = 2, {}  # torch takes one where two cores are one core's hyper-threads
        draw = make_draw(0.1, torch.arange(4 * 300).view(4, 300), 300)
        x, scores, grad = torch.randn(3, 4, 300, 300)
        for count in (1, usual):
            torch.set_num_threads(count)
            lse = torch.zeros(4, 300)
            parts = [kernels.drop(x, draw), kernels.softmax_drop(scores.clone(), lse, 0.5, draw)]
            parts += kernels.softmax_drop_backward(
                scores.clone(), grad.clone(), lse, 0.5, draw, torch.float32)
            found[count] = (kernels.threads(), parts)
        same = all(torch.equal(a, b) for a, b in zip(found[1][1], found[usual][1]))
        print(json.dumps([usual, found[1][0], found[usual][0], same]))
    """
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    usual, alone, together, same = json.loads(done.stdout)
    assert (alone, together) == (1, usual)
    assert same


def test_without_a_compiler_the_plain_kernels_run_and_say_why(empty_cache, no_compiler):
    kernels, said = choose_kernels("auto")
    assert kernels.name == "plain"
    assert "no C++ compiler" in said


def test_native_on_without_a_compiler_says_what_to_do(empty_cache, no_compiler):
    with pytest.raises(ValueError, match=r"no C\+\+ compiler.*apt install g\+\+.*\"auto\""):
        choose_kernels("on")


def test_native_off_builds_nothing(empty_cache):
    kernels, _ = choose_kernels("off")
    assert kernels.name == "plain"
    assert not empty_cache.exists()


def test_built_kernels_need_no_compiler_any_more(kernels, no_compiler):
    found, _ = choose_kernels("on")
    assert found.name == "native"


def test_compiler_that_fails_leaves_the_plain_kernels_and_its_error(empty_cache, compiler):
    compiler("echo 'kernels.cpp:1: error: no such vector' >&2; exit 1")
    kernels, said = choose_kernels("auto")
    assert kernels.name == "plain"
    assert "no such vector" in said
    with pytest.raises(ValueError, match="no such vector"):
        choose_kernels("on")


def test_compiler_that_does_not_end_is_not_waited_for(empty_cache, compiler, monkeypatch):
    compiler("exec sleep 60")
    monkeypatch.setattr(native, "SECONDS", 0.2)
    kernels, said = choose_kernels("auto")
    assert kernels.name == "plain"
    assert "took more than 0.2 s" in said


def test_folder_that_cannot_be_written_leaves_the_plain_kernels(tmp_path, monkeypatch, compiler):
    compiler("exit 0")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPENLOOP_CACHE", str(tmp_path / "file"))
    kernels, said = choose_kernels("auto")
    assert kernels.name == "plain"
    assert "file" in said


@pytest.mark.parametrize("end", ["exit 1", "kill -9 $$", "exec sleep 60"])
def test_build_that_is_cut_off_leaves_nothing(empty_cache, compiler, monkeypatch, end):
    compiler(f"printf garbage > $target; {end}")
    monkeypatch.setattr(native, "SECONDS", 0.5)
    assert load_native()[0] is None
    assert list(empty_cache.iterdir()) == []


@needs_compiler
def test_build_after_one_that_was_cut_off_or_damaged_works(empty_cache, compiler, monkeypatch):
    compiler("printf garbage > $target; kill -9 $$")
    assert load_native()[0] is None
    remains = empty_cache / "kernels-0.so.part"  # as a kill of this process would leave
    remains.write_text("garbage")
    monkeypatch.delenv("CXX")
    library_path().write_text("damaged since it was built")
    kernels, said = load_native()
    assert kernels is not None, said
    assert {path.name for path in empty_cache.iterdir()} == {library_path().name, remains.name}


def test_file_that_is_no_library_leaves_the_plain_kernels(empty_cache, compiler):
    compiler("printf garbage > $target")
    kernels, said = choose_kernels("auto")
    assert kernels.name == "plain"
    assert "cannot be loaded" in said


def test_library_appears_by_one_rename(empty_cache, compiler, monkeypatch):
    def fail(*_):
        raise OSError("no rename today")

    compiler("printf garbage > $target")
    monkeypatch.setattr(os, "replace", fail)
    assert load_native() == (None, "no rename today")
    assert list(empty_cache.iterdir()) == []


def test_name_of_the_library_changes_with_what_it_depends_on(tmp_path, monkeypatch):
    source = tmp_path / "other.cpp"
    source.write_text(native.SOURCE.read_text() + "\n")
    names = {library_path()}
    for where, name, value in (
        (native, "SOURCE", source),
        (torch, "__version__", "9.9"),
        (torch, "__file__", "/elsewhere/torch/__init__.py"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "OTHER"),
        (platform, "machine", lambda: "riscv"),
    ):
        assert library_path() == library_path()
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            names.add(library_path())
    assert len(names) == 6


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86")
@pytest.mark.parametrize("instructions", ["DEFAULT", "AVX2", "AVX512"])
def test_every_instruction_set_compiles_to_the_same_mask(tmp_path, monkeypatch, instructions):
    order = ["DEFAULT", "AVX2", "AVX512"]
    here = torch.backends.cpu.get_cpu_capability()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    path = tmp_path / "kernels.so"
    assert build(path) is None
    if here not in order or order.index(instructions) > order.index(here):
        return  # it compiles, but this processor cannot run it
    kernels = NativeKernels(path)
    x = torch.randn(30, 77)
    draw = make_draw(0.1, torch.arange(30), 77)
    assert torch.equal(kernels.drop(x, draw), PLAIN.drop(x, draw))
    assert kernels.vector_width() == native.WIDTHS.get(instructions, kernels.vector_width())
