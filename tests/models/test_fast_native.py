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

from models.fast.cpu import compiler as building
from models.fast.cpu.attention import row_ids
from models.fast.cpu.compiler import build, find_compiler, library_folder
from models.fast.cpu.kernels import PlainKernels, Texts
from models.fast.cpu.masks import Draw, make_draw
from models.fast.cpu.native import NativeKernels, load_native
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
    return tmp_path / "cache" / f"native-{os.geteuid()}"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """compiler(body): make $CXX a shell script; $target is the file that it should write."""

    def write(body):
        path = tmp_path / "own-c++"
        find = 'while [ "$1" != "-o" ]; do shift; done; target="$2"'
        path.write_text(f"#!/bin/sh\n{find}\n{body}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(path))

    return write


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


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


def attention_inputs(keys, p, size=8, dtype=torch.float32):
    """(tensors, spans, draw): q, k, v, grad of three texts, the last one of `keys` tokens."""
    torch.manual_seed(keys)
    spans = [(0, 5), (5, 30), (33, 33 + keys)]
    tensors = torch.randn(4, 33 + keys, 3, size)
    tensors[0] *= (8 / size) ** 0.5  # scores of the same size whatever that of the heads
    tensors = tensors.to(dtype)
    draw = make_draw(p, row_ids(spans, 33 + keys, 3), max(25, keys)) if p else None
    return tensors, spans, draw


def attend_both_ways(kernels, tensors, spans, draw):
    """out, lse, dq, dk, dv."""
    out, lse = kernels.attend(*tensors[:3], Texts(spans, spans), 0.7, draw)
    needs = (True, True, True)
    return [
        out,
        lse,
        *kernels.attend_backward(*tensors, lse, Texts(spans, spans), 0.7, draw, needs),
    ]


@pytest.mark.parametrize("keys", WIDTHS)
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("size", [8, 48])
def test_attention_equals_the_plain_one(kernels, keys, p, size):
    given = attention_inputs(keys, p, size)
    found, expected = (attend_both_ways(k, *given) for k in (kernels, PLAIN))
    (q, k, *_), spans, _ = given
    lse = expected[1].zero_()  # plain torch leaves it unwritten
    for start, stop in spans:
        Q, K = (t[start:stop].transpose(0, 1) for t in (q, k))
        lse[:, start:stop] = torch.logsumexp(0.7 * Q @ K.mT, -1)
    inside = [i for start, stop in spans for i in range(start, stop)]
    found[1], expected[1] = found[1][:, inside], lse[:, inside]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_queries_may_be_fewer_than_keys(kernels, dtype, p):
    torch.manual_seed(0)
    spans, queries = [(0, 5), (5, 5), (5, 70)], [(0, 1), (1, 1), (1, 34)]
    (q, grad), (k, v) = torch.randn(2, 40, 3, 8).to(dtype), torch.randn(2, 80, 3, 8).to(dtype)
    draw = make_draw(p, row_ids(queries, 40, 3), 65) if p else None
    found, expected = [], []
    for each, results in ((kernels, found), (PLAIN, expected)):
        texts, needs = Texts(spans, queries), (True, True, True)
        out, lse = each.attend(q, k, v, texts, 0.7, draw)
        results += [out, *each.attend_backward(q, k, v, grad, lse, texts, 0.7, draw, needs)]
    close = {"atol": 5e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.02}
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **close)
    out, dq, dk, dv = found
    assert not out[34:].any()
    assert not dq[34:].any()
    assert not dk[70:].any()
    assert not dv[70:].any()


@pytest.mark.parametrize("tokens", [5, 17, 40, 300])
def test_scores_far_below_zero_leave_all_gradients_finite(kernels, tokens):
    """The rows that fill up a block of queries have no log-sum that would hold them down."""
    q, v, grad = torch.full((tokens, 1, 32), 5.0), *torch.randn(2, tokens, 1, 32)
    for dtype in (torch.float32, torch.bfloat16):
        given = [t.to(dtype) for t in (q, -q, v, grad)]
        texts, needs = Texts([(0, tokens)], [(0, tokens)]), (True, True, True)
        out, lse = kernels.attend(*given[:3], texts, 32**-0.5, None)
        found = [out, *kernels.attend_backward(*given, lse, texts, 32**-0.5, None, needs)]
        out, _ = PLAIN.attend(*given[:3], texts, 32**-0.5, None)
        expected = [out, *PLAIN.attend_backward(*given, lse, texts, 32**-0.5, None, needs)]
        for a, b in zip(found, expected, strict=True):
            # a score of -141 is a multiple of 1.5e-5, so a probability is exact to that
            close = 1e-4 if dtype == torch.float32 else 0.05
            torch.testing.assert_close(a, b, atol=close, rtol=0.02)


@pytest.mark.parametrize("spans", [[(0, 7), (7, 60)], [(0, 7), (9, 60)], [(3, 60)], []])
def test_tokens_outside_the_spans_get_zeros(kernels, spans):
    tensors = torch.randn(4, 83, 3, 8)
    draw = make_draw(0.1, row_ids(spans, 83, 3), 60) if spans else None
    inside = torch.zeros(83, dtype=torch.bool)
    for start, stop in spans:
        inside[start:stop] = True
    torch.full((1 << 20,), float("nan"))  # what fresh memory may hold
    for i, tensor in enumerate(attend_both_ways(kernels, tensors, spans, draw)):
        if i != 1:
            assert not tensor[~inside].any()
            assert tensor[inside].any() or not spans


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_drops_what_the_plain_one_drops(kernels, dtype):
    """With equal scores and one-hot values the output, and with one-hot gradients dv, are the
    mask itself."""
    tokens = 80
    draw = make_draw(0.3, row_ids([(0, tokens)], tokens, 2), tokens)
    q = torch.zeros(tokens, 2, tokens, dtype=dtype)
    eye = torch.eye(tokens, dtype=dtype).unsqueeze(1).repeat(1, 2, 1)
    found, expected = (
        attend_both_ways(k, [q, q, eye, eye], [(0, tokens)], draw) for k in (kernels, PLAIN)
    )
    for a, b in ((found[0], expected[0]), (found[4], expected[4])):
        assert torch.equal(a == 0, b == 0)
        assert 0.25 < (a == 0).double().mean() < 0.35


@pytest.mark.parametrize("keys", [1, 15, 33, 250])
@pytest.mark.parametrize("size", [2, 10, 32, 48])
def test_attention_in_bf16_is_that_of_fp32_to_rounding(kernels, keys, size):
    given = attention_inputs(keys, 0.1, size, torch.bfloat16)
    low = attend_both_ways(kernels, *given)
    exact = attend_both_ways(kernels, given[0].float(), *given[1:])
    for i in (0, 2, 3, 4):  # lse is not written where bf16 is plain torch
        there, expected = low[i][33:], exact[i][33:]
        assert (there - expected).norm() <= 2**-7 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_score_that_is_no_number_is_not_hidden(kernels, dtype, value):
    torch.manual_seed(0)
    q, k, v, grad = torch.randn(4, 40, 1, 8).to(dtype)
    q[:, 0, 0], k[3, 0, 0] = 1, value
    texts, needs = Texts([(0, 40)], [(0, 40)]), (True, True, True)
    for each in (kernels, PLAIN):
        out, lse = each.attend(q, k, v, texts, 0.7, None)
        dq, dk, dv = each.attend_backward(q, k, v, grad, lse, texts, 0.7, None, needs)
        assert all(tensor.isnan().all() for tensor in (out, dq, dk, dv))


@pytest.mark.parametrize("shift", [0.0, 4e4, -4e4])
def test_softmax_of_huge_scores_is_finite(kernels, shift):
    scores = torch.tensor([3e4, -3e4, 2.9e4, 0.0]) + shift
    q, k = torch.zeros(4, 1, 2), torch.zeros(4, 1, 2)
    q[:, 0, 0], k[:, 0, 0] = 1, scores
    v = torch.eye(4).unsqueeze(1)[:, :, :2].contiguous()
    texts = Texts([(0, 4)], [(0, 4)])
    for each in (kernels, PLAIN):
        out, lse = each.attend(q, k, v, texts, 1.0, None)
        assert out[:, 0].tolist() == [[1, 0]] * 4
        grads = each.attend_backward(
            q, k, v, torch.ones_like(q), lse, texts, 1.0, None, (True, True, True)
        )
        assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_dtypes_without_kernels_are_plain_torch(kernels, dtype):
    given = attention_inputs(31, 0.1, dtype=dtype)
    found, expected = (attend_both_ways(k, *given) for k in (kernels, PLAIN))
    for i in (0, 2, 3, 4):  # lse is not written where no text is
        assert torch.equal(found[i], expected[i])


def test_bf16_without_units_for_it_is_plain_torch(kernels, monkeypatch):
    monkeypatch.setattr(kernels, "bf16_products", False)
    given = attention_inputs(31, 0.1, dtype=torch.bfloat16)
    found, expected = (attend_both_ways(k, *given) for k in (kernels, PLAIN))
    for i in (0, 2, 3, 4):  # lse is not written where no text is
        assert torch.equal(found[i], expected[i])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the widths are those of x86")
def test_vector_width_is_what_the_instruction_set_promises(kernels):
    expected = building.WIDTHS.get(torch.backends.cpu.get_cpu_capability())
    if expected is None:
        pytest.skip("neither AVX2 nor AVX-512 here")
    assert kernels.vector_width() == expected


@needs_compiler
@pytest.mark.skipif(os.cpu_count() == 1, reason="one core")
def test_loops_use_all_threads_and_give_the_same_bits_with_each_number(kernels):
    """In a process of its own: this one is held to one thread."""
    code = """if True:
        import json, torch
        from models.fast.cpu.kernels import Texts
        from models.fast.cpu.masks import make_draw
        from models.fast.cpu.native import load_native
        kernels, _ = load_native()
        usual, found = 2, {}  # torch takes one where two cores are one core's hyper-threads
        draw = make_draw(0.1, torch.arange(4 * 300).view(4, 300), 300)
        x, spans = torch.randn(4, 300, 4, 32), [(0, 100), (100, 300)]
        texts = Texts(spans, spans)
        for count in (1, usual):
            torch.set_num_threads(count)
            parts = [kernels.drop(x[0, :, 0].expand(4, 300, 32), draw)]
            parts += kernels.attend(*x[:3], texts, 0.5, draw)
            parts += kernels.attend_backward(
                *x, parts[2], texts, 0.5, draw, (True, True, True))
            norm = torch.nn.LayerNorm(32)
            out, _, s, stats = kernels.add_norm(x[0, :, 0], x[1, :, 0], norm, None, True)
            parts += [out, s.clone(), stats]
            parts += kernels.add_norm_backward(
                x[2, :, 0], None, s, stats, norm, None, torch.float32, True)
            parts.append(kernels.gelu_backward(x[0], x[1].clone()))
            found[count] = (kernels.threads(), parts)
        same = all(torch.equal(a, b) for a, b in zip(found[1][1], found[usual][1]))
        print(json.dumps([usual, found[1][0], found[usual][0], same]))
    """
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
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
    monkeypatch.setattr(building, "SECONDS", 0.2)
    kernels, said = choose_kernels("auto")
    assert kernels.name == "plain"
    assert "took more than 0.2 s" in said


def test_of_two_processes_that_start_together_one_compiles(empty_cache, compiler, tmp_path):
    compiler(f"echo one >> {tmp_path}/compiled; sleep 1; printf garbage > $target")
    code = (
        "from models.fast.cpu.compiler import build, library_folder; print(build(library_folder()))"
    )
    command = [sys.executable, "-c", code]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8")
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in both] == ["None\n", "None\n"]
    assert (tmp_path / "compiled").read_text(encoding="utf-8") == "one\n"


def test_folder_that_cannot_be_written_leaves_the_plain_kernels(tmp_path, monkeypatch, compiler):
    compiler("exit 0")
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("OPENLOOP_CACHE", str(tmp_path / "file"))
    kernels, said = choose_kernels("auto")
    assert kernels.name == "plain"
    assert "file" in said


@pytest.mark.parametrize("end", ["exit 1", "kill -9 $$", "exec sleep 60"])
def test_build_that_is_cut_off_leaves_nothing(empty_cache, compiler, monkeypatch, end):
    compiler(f"printf garbage > $target; {end}")
    monkeypatch.setattr(building, "SECONDS", 0.5)
    assert load_native()[0] is None
    assert list(empty_cache.iterdir()) == []


@pytest.mark.slow
@needs_compiler
def test_build_after_one_that_was_cut_off_or_damaged_works(empty_cache, compiler, monkeypatch):
    compiler("printf garbage > $target; kill -9 $$")
    assert load_native()[0] is None
    remains = empty_cache / ".kernels-0.0123456789abcdef.tmp"  # as a kill of this process leaves
    remains.mkdir()
    monkeypatch.delenv("CXX")
    library_folder().write_text("damaged since it was built", encoding="utf-8")
    kernels, said = load_native()
    assert kernels is not None, said
    assert [path.name for path in empty_cache.iterdir()] == [library_folder().name]


def test_file_that_is_no_library_leaves_the_plain_kernels(empty_cache, compiler):
    compiler("printf garbage > $target")
    kernels, said = choose_kernels("auto")
    assert kernels.name == "plain"
    assert "cannot be loaded" in said


def test_library_appears_by_one_rename(empty_cache, compiler, monkeypatch):
    def fail(*_):
        raise OSError("no rename today")

    compiler("printf garbage > $target")
    monkeypatch.setattr(os, "rename", fail)
    assert load_native() == (None, "no rename today")
    assert list(empty_cache.iterdir()) == []


def test_name_of_the_library_changes_with_what_it_depends_on(tmp_path, monkeypatch):
    other = tmp_path / "other.cpp"
    other.write_text(building.SOURCES[-1].read_text(encoding="utf-8") + "\n", encoding="utf-8")
    names = {library_folder()}
    for where, name, value in (
        (building, "SOURCES", [*building.SOURCES[:-1], other]),
        (torch, "__version__", "9.9"),
        (torch, "__file__", "/elsewhere/torch/__init__.py"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "OTHER"),
        (platform, "machine", lambda: "riscv"),
    ):
        assert library_folder() == library_folder()
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            names.add(library_folder())
    assert len(names) == 6


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86")
@pytest.mark.parametrize("instructions", ["DEFAULT", "AVX2", "AVX512"])
def test_every_instruction_set_compiles_to_the_same_mask(tmp_path, monkeypatch, instructions):
    order = ["DEFAULT", "AVX2", "AVX512"]
    here = torch.backends.cpu.get_cpu_capability()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    path = tmp_path / "native" / "kernels"
    assert build(path) is None
    if here not in order or order.index(instructions) > order.index(here):
        return  # it compiles, but this processor cannot run it
    kernels = NativeKernels(path)
    x = torch.randn(30, 77)
    draw = make_draw(0.1, torch.arange(30), 77)
    assert torch.equal(kernels.drop(x, draw), PLAIN.drop(x, draw))
    given = attention_inputs(33, 0.1)
    for a, b in zip(*(attend_both_ways(k, *given) for k in (kernels, PLAIN)), strict=True):
        if a.dim() == 3:  # all but lse, which is not written where no text is
            torch.testing.assert_close(a, b, atol=5e-6, rtol=1e-5)
    assert kernels.vector_width() == building.WIDTHS.get(instructions, kernels.vector_width())


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 31, 64])
@pytest.mark.parametrize("sizes", [(384, 1536), (1536, 384), (3, 5), (17, 33), (1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_of_few_rows_is_as_exact_as_torchs(kernels, rows, sizes, bias):
    ins, outs = sizes
    g = torch.Generator().manual_seed(rows + ins)
    x, weight = (torch.randn(n, ins, generator=g) for n in (rows, outs))
    b = torch.randn(outs, generator=g) if bias else None
    exact = torch.nn.functional.linear(
        x.double(), weight.double(), None if b is None else b.double()
    )
    off = (kernels.multiply_few(x, weight, b).double() - exact).abs()
    scale = x.double().abs() @ weight.double().abs().T + 1  # of the sums that are rounded
    assert (off / scale).max() < 2e-7
    by_columns = kernels.multiply_few(x.T.contiguous().T, weight, b)
    assert torch.equal(by_columns, kernels.multiply_few(x, weight, b))


def test_a_row_has_the_same_sum_beside_others(kernels):
    x, weight = torch.randn(64, 384), torch.randn(384, 384)
    whole = kernels.multiply_few(x, weight, None)
    alone = torch.cat([kernels.multiply_few(row[None], weight, None) for row in x])
    assert torch.equal(whole, alone)
