"""The paths of a GPU, proven on a CPU: the same code, with SDPA in place of the GPU's attention."""

import contextlib
import copy
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from engine.loop import train_step
from engine.losses import count_items, cross_entropy, loss_from_logits
from engine.optim import Schedule, build_optimizer, parameter_groups
from engine.plan import Plan, Progress
from engine.precision import Precision
from models.fast.cuda import attention
from models.fast.cuda.attention import attend_padded, attend_varlen, kernel_of
from models.fast.cuda.compiled import Compilations, compile_parts, why_not
from models.fast.encoder import Written, encoder_of, write_out
from models.fast.layout import layout_of
from models.fast.speed import SpeedArgs, speed_up
from models.fast.streams import DECODERS, POSITIONS
from models.heads import Classifier, LinearHead
from models.methods.lora import LoRA, inject_lora

CUDA, FP32 = torch.device("cuda"), torch.float32
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
ENCODERS = [name for name in POSITIONS if name not in DECODERS]
HEADS = ("native", "cls", "mean")
LENGTHS = {"right": [7, 1, 4], "left": [7, 1, 4], "empty row": [7, 0, 4], "one": [5]}


def batch(side="right", seed=1, lengths=None):
    """A padded batch on the host, with its layout."""
    counts = torch.tensor(LENGTHS[side] if lengths is None else lengths).unsqueeze(1)
    width = int(counts.max())
    place = torch.arange(width)
    mask = (place >= width - counts if side == "left" else place < counts).long()
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 50, mask.shape, generator=draw) * mask
    return {"input_ids": ids, "attention_mask": mask, "layout": layout_of(mask)}


@pytest.fixture
def model_of(encoder):
    """model_of(name, head, adapted, rate): with a GPU's paths put in, but on the CPU."""

    def build(name, head="native", adapted=False, rate=0.0, fast=True, **switches):
        kind = AutoModelForSequenceClassification if head == "native" else AutoModel
        inner = encoder(name, kind)
        inner.set_attn_implementation("sdpa")
        torch.manual_seed(2)
        model = inner if head == "native" else Classifier(inner, LinearHead(16, 2, 0.0, head))
        if adapted:
            inject_lora(model, LoRA("all-linear", rank=2), 0, exclude=["head", "classifier"])
            for parameter_name, parameter in model.named_parameters():
                parameter.requires_grad_("lora" in parameter_name)
                if parameter_name.endswith("lora_B"):
                    nn.init.normal_(parameter, std=0.2)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate
        if fast:
            args = SpeedArgs(**{"compile": False} | switches)
            model.speed = speed_up(model, args, CUDA, FP32)
        return model.train()

    return build


def logits_and_gradients(model, inputs):
    model.zero_grad()
    torch.manual_seed(3)
    out = model(**inputs)
    logits = out if isinstance(out, torch.Tensor) else out.logits
    (logits * torch.arange(1, logits.numel() + 1).view_as(logits)).sum().backward()
    named = model.named_parameters()
    return logits.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_streams_give_the_padded_logits_and_gradients(model_of, name, head, adapted, side):
    if side == "left" and head == "native":
        pytest.skip("the architecture's own head looks at the first column")
    inputs = batch(side)
    fast = model_of(name, head, adapted)
    assert fast.speed.resolved["attention"] == "varlen"
    assert fast.speed.resolved["batches"] == "streams"
    found = logits_and_gradients(fast, inputs)
    plain = {key: value for key, value in inputs.items() if key != "layout"}
    expected = logits_and_gradients(model_of(name, head, adapted, fast=False), plain)
    assert found[0].shape == (3, 2)
    for parameter, gradient in expected[1].items():
        if not gradient.any():  # of what no output needs
            found[1].setdefault(parameter, gradient)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", ["bert", "albert"])
def test_without_a_layout_the_mask_says_the_same(model_of, name):
    inputs = batch()
    found = logits_and_gradients(model_of(name), inputs)
    del inputs["layout"]
    expected = logits_and_gradients(model_of(name), inputs)
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("head", ["native", "mean"])
def test_a_row_without_a_token_is_finite_and_disturbs_no_other(model_of, name, head):
    model = model_of(name, head)
    logits, gradients = logits_and_gradients(model, batch("empty row"))
    assert logits.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    alone, _ = logits_and_gradients(model, batch(lengths=[7, 4], seed=1))
    ids = batch("empty row")["input_ids"][[0, 2]]
    inputs = batch(lengths=[7, 4]) | {"input_ids": ids}
    alone, _ = logits_and_gradients(model, inputs)
    torch.testing.assert_close(logits[[0, 2]], alone, **CLOSE)


@pytest.mark.parametrize("side", LENGTHS)
@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_equals_a_loop_over_the_texts(side, first_only, dtype):
    torch.manual_seed(0)
    layout = layout_of(batch(side)["attention_mask"])
    q, k, v = torch.randn(3, layout.ids.shape[1], 2, 8, dtype=dtype)
    q = q[layout.firsts] if first_only else q
    out = attend_varlen(q, k, v, layout, first_only, 0.3, 0.0)
    ends, expected = layout.ends.tolist(), []
    for text, (start, end) in enumerate(pairwise(ends)):
        rows = q[text : text + 1] if first_only else q[start:end]
        scores = torch.einsum("mhd,nhd->hmn", rows, k[start:end]) * 0.3
        expected.append(torch.einsum("hmn,nhd->mhd", scores.softmax(-1), v[start:end]))
    torch.testing.assert_close(out, torch.cat(expected), **CLOSE)


def test_dropout_of_probabilities_keeps_their_mean():
    layout = layout_of(torch.ones(1, 60, dtype=torch.long))
    q = k = torch.zeros(64, 1, 8)
    v = torch.ones(64, 1, 8)
    torch.manual_seed(0)
    drawn = [attend_padded(q, k, v, layout, False, 1.0, 0.5)[:60].mean() for _ in range(60)]
    assert torch.stack(drawn).std() > 0
    assert torch.stack(drawn).mean().item() == pytest.approx(1, abs=0.02)


def test_the_kernels_of_a_gpu_take_what_they_are_given():
    """Their shapes and gradients, on tensors without memory; no GPU is asked."""
    q = torch.empty(128, 2, 32, device="meta", dtype=torch.bfloat16, requires_grad=True)
    ends = torch.empty(4, device="meta", dtype=torch.int32)
    out, *_ = torch.ops.aten._flash_attention_forward(
        q, q, q, ends, ends, 60, 60, 0.1, False, False, scale=0.2
    )
    out.sum().backward()
    assert out.shape == q.grad.shape == q.shape
    assert kernel_of(q) == "padded"  # not on CUDA
    q = torch.empty(1, 128, 2, 32, device="meta", requires_grad=True)
    out, *_ = torch.ops.aten._efficient_attention_forward(
        q, q, q, None, ends, ends, 60, 60, 0.1, 0, True, scale=0.2
    )
    assert out.shape == q.shape
    assert out.requires_grad


def window(count=3):
    rows = [batch(lengths=[9, 3, 5 + i], seed=i) for i in range(count)]
    return [{"inputs": inputs, "labels": torch.tensor([0, 1, 0]), "items": 3} for inputs in rows]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("head", ["native", "mean"])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_whole_window_asks_the_host_nothing_but_its_result(
    model_of, questions, name, head, adapted
):
    model = model_of(name, head, adapted, rate=0.1)
    precision = Precision(torch.device("cpu"), "", "fp32", "")
    groups = parameter_groups(model, 1e-3, None, set(), 0.01)
    optimizer = build_optimizer(groups, (0.9, 0.999), 1e-8)
    plan = Plan(0, 1, 3, 3, 1, 1.0, None, None)
    steps = [window(), window()]
    with questions:
        for micro_batches in steps:
            questions.asked.clear()  # the first step makes the optimizer's state
            launched = train_step(
                model, micro_batches, loss_from_logits(cross_entropy), count_items, optimizer,
                precision.scaler(), Schedule("constant", 2, 0), precision, plan, Progress(),
            )  # fmt: skip
            assert questions.asked == []
    assert launched.result(Progress()).count == 9


class Nowhere(Precision):
    """A device whose tensors have no memory: a question to one of them cannot be answered, and a
    tensor of the host among them is an error."""

    def autocast(self):
        return contextlib.nullcontext()


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("head", ["native", "mean"])
@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_whole_window_never_mixes_what_is_on_the_host_and_what_is_not(
    model_of, monkeypatch, name, head, adapted, dropout
):
    monkeypatch.setattr(attention, "kernel_of", lambda q: "flash")
    monkeypatch.setattr(attention, "varlen_attn", flash_without_dropout)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    monkeypatch.setattr(torch, "autocast", lambda kind, enabled: contextlib.nullcontext())
    model = model_of(name, head, adapted, rate=dropout).to("meta")
    precision = Nowhere(torch.device("meta"), "", "fp32", "")
    optimizer = torch.optim.SGD(parameter_groups(model, 1e-3, None, set(), 0.01), lr=1e-3)
    optimizer._step_supports_amp_scaling = True  # as a fused one, of which there is none here
    monkeypatch.setattr(optimizer, "step", lambda: None)
    launched = train_step(
        model, window(), loss_from_logits(cross_entropy), count_items, optimizer,
        torch.amp.GradScaler("cpu", enabled=False), Schedule("constant", 2, 0), precision,
        Plan(0, 1, 3, 3, 1, 1.0, None, None), Progress(),
    )  # fmt: skip
    assert launched.figures.device.type == "meta"
    with pytest.raises(NotImplementedError, match="meta"):
        launched.result(Progress())


def flash_without_dropout(q, k, v, query_ends, ends, most, longest, window_size, enable_gqa):
    """What varlen_attn calls, which has no form for tensors without memory."""
    return torch.ops.aten._flash_attention_forward(
        q, k, v, query_ends, ends, most, longest, 0.0, False, False
    )[0]


@pytest.mark.parametrize("name", [pytest.param("bert", marks=pytest.mark.slow), "distilbert"])
def test_compiled_parts_are_recomputed_to_the_same_gradients(model_of, name):
    torch._dynamo.reset()
    found = []
    for checkpointing in (False, True):
        model = written(model_of(name, rate=0.2, lora=False), Compilations(lower=traced))
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        found.append(logits_and_gradients(model, batch()))
    torch.testing.assert_close(*found)


def written(model, compilations):
    """The model with its layers' parts compiled."""
    encoder = encoder_of(model.base_model if hasattr(model, "base_model") else model.backbone)
    how = encoder.how
    project, finish = compile_parts(compilations)
    write_out(encoder, Written(project, attend_varlen, finish, how.first_only))
    return model


def lengths_of(draw):
    return torch.randint(1, 40, (int(torch.randint(2, 6, (), generator=draw)),), generator=draw)


def check_lengths(model_of, compilations, name, adapted, steps):
    """Losses of many random lengths, compiled and not; whether anything was compiled again."""
    torch._dynamo.reset()
    plain = model_of(name, "native", adapted, lora=False)
    model = written(copy.deepcopy(plain), compilations)
    draw = torch.Generator().manual_seed(0)
    for step in range(steps):
        inputs = batch(seed=step, lengths=lengths_of(draw).tolist())
        found, expected = (logits_and_gradients(m, inputs) for m in (model, plain))
        torch.testing.assert_close(found, expected, **CLOSE)
        if step % 20 == 1:  # evaluations in between are a way of their own
            with torch.no_grad():
                logits = model.eval()(**inputs).logits
            torch.testing.assert_close(logits, expected[0], **CLOSE)
            model.train()
    assert compilations.graphs > 2
    return compilations.again


def traced(graph, inputs):
    """The graph as it was traced: what inductor would make code of."""
    return graph.forward


SOME, MANY = 60, 200  # steps, each of new lengths


@pytest.mark.parametrize(
    ("name", "adapted", "steps"),
    [
        pytest.param("bert", True, SOME, marks=pytest.mark.slow),
        ("distilbert", False, SOME),
        pytest.param("bert", True, MANY, marks=pytest.mark.slow),
        pytest.param("distilbert", False, MANY, marks=pytest.mark.slow),
    ],
)
def test_compiled_parts_give_the_same_losses_over_many_lengths(model_of, name, adapted, steps):
    again = check_lengths(model_of, Compilations(lower=traced), name, adapted, steps)
    assert again <= 2


def distance(found, exact):
    """How far logits and gradients lie from the exact ones, as one number."""
    wrong = [(found[0].double() - exact[0]).square().sum()]
    wrong += [(g.double() - exact[1][name]).square().sum() for name, g in found[1].items()]
    return torch.stack(wrong).sum().sqrt().item()


@pytest.mark.slow
@pytest.mark.parametrize("adapted", [False, True])
def test_code_that_inductor_writes_errs_no_more_than_the_modules(model_of, adapted):
    if why_not(torch.device("cpu")):
        pytest.skip("no C++ compiler for torch.compile")
    torch._dynamo.reset()
    compilations, errors = Compilations(), []
    plain = model_of("bert", "native", adapted, lora=False)
    model, exact = written(copy.deepcopy(plain), compilations), copy.deepcopy(plain).double()
    draw = torch.Generator().manual_seed(0)
    for step in range(100):
        inputs = batch(seed=step, lengths=lengths_of(draw).tolist())
        true = logits_and_gradients(exact, inputs)
        errors.append([distance(logits_and_gradients(m, inputs), true) for m in (model, plain)])
    ours, theirs = torch.tensor(errors).mean(0).tolist()
    assert 0 < ours <= 1.5 * theirs
    assert compilations.graphs > 2
    assert compilations.again <= 2


def test_graphs_compiled_again_are_counted():
    compilations = Compilations()
    for graphs, way in [(1, "a"), (2, "b"), (2, "a"), (4, "a"), (5, "c")]:
        compilations.call(partial(setattr, compilations, "graphs"), lambda way=way: (way,), graphs)
    assert compilations.again == 2
    assert compilations.line() == "layers: 5 graphs compiled, 2 of them again"


def test_what_cannot_be_compiled_is_said_and_runs_as_it_is(model_of):
    model = model_of("bert", compile=True)  # for a GPU that is not there
    assert any(note.startswith("layers: not compiled (") for note in model.speed.notes)
    assert "layers" not in model.speed.resolved
    logits_and_gradients(model, batch())


@pytest.mark.parametrize("switch", ["attention", "unpad"])
def test_without_streams_attention_is_the_stock_one(model_of, switch):
    model = model_of("bert", **{switch: False})
    assert "batches" not in model.speed.resolved
    assert "forward" not in vars(model.bert)
    assert any(note.startswith("attention: stock") for note in model.speed.notes)


def test_on_another_device_everything_is_plain(model_of):
    model = model_of("bert", fast=False)
    speed = speed_up(model, SpeedArgs(), torch.device("mps"), FP32)
    assert speed.resolved == {}
    assert speed.notes == ["there are none for mps"]


ON_A_GPU = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
NEAR = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def gpu(function):
    """Marks a test for a GPU."""
    for mark in ON_A_GPU:
        function = mark(function)
    return function


def qkv(layout, first_only, dtype):
    draw = torch.Generator("cuda").manual_seed(0)
    shape = (3, layout.ids.shape[1], 4, 32)
    q, k, v = torch.randn(shape, generator=draw, device="cuda", dtype=torch.float32).to(dtype)
    q = q[layout.firsts] if first_only else q
    return [t.detach().requires_grad_() for t in (q, k, v)]


@gpu
@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("prefix", [0, 5])
def test_a_gpus_attention_equals_the_padded_one(dtype, first_only, prefix):
    layout = layout_of(batch(lengths=[300, 1, 77, 130])["attention_mask"]).to("cuda")
    layout = layout.with_prefix(prefix) if prefix else layout
    found = []
    for attend in (attend_varlen, attend_padded):
        inputs = qkv(layout, first_only, dtype)
        used = inputs if attend is attend_varlen else [t.float() for t in inputs]
        if prefix:
            ones = torch.ones(prefix, 4, 32, device="cuda")
            used = [used[0], *(layout.keys.insert(ones, t) for t in used[1:])]
        out = attend(*used, layout, first_only, 32**-0.5, 0.0).float()
        out.square().sum().backward()
        found.append((out.detach(), *(t.grad.float() for t in inputs)))
    near = NEAR[dtype]
    torch.testing.assert_close(*found, atol=near, rtol=near)


@gpu
@pytest.mark.parametrize("dtype", NEAR)
def test_a_gpus_dropout_of_probabilities_is_a_function_of_the_seed(dtype):
    layout = layout_of(batch(lengths=[300, 1, 77, 130])["attention_mask"]).to("cuda")
    q, k, v = qkv(layout, False, dtype)

    def attend(seed, v):
        torch.manual_seed(seed)
        return attend_varlen(q, k, v, layout, False, 32**-0.5, 0.3).float()

    out, again, other = attend(1, v), attend(1, v), attend(2, v)
    assert torch.equal(out, again)
    assert not torch.equal(out, other)
    # linear in v, so the gradient of v has to see the same mask as the forward pass
    change = torch.randn_like(v)
    moved = ((attend(1, v + change) - out) * other).sum()
    (slope,) = torch.autograd.grad((out * other.detach()).sum(), v)
    assert (slope.float() * change.float()).sum().item() == pytest.approx(moved.item(), rel=0.1)


@gpu
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("head", ["native", "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_streams_on_a_gpu_give_the_padded_logits_of_the_host(model_of, name, head, dtype):
    inputs = batch(lengths=[60, 3, 17])
    on_device = {key: value.to("cuda") for key, value in inputs.items()}
    model = model_of(name, head).to("cuda")
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        found, gradients = logits_and_gradients(model, on_device)
    del inputs["layout"]
    expected, _ = logits_and_gradients(model_of(name, head, fast=False), inputs)
    near = NEAR[dtype] * 3
    torch.testing.assert_close(found.float().cpu(), expected, atol=near, rtol=near)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@gpu
@pytest.mark.parametrize("adapted", [False, True])
def test_parts_compiled_for_a_gpu_give_the_same_logits(model_of, adapted):
    torch._dynamo.reset()
    plain = model_of("bert", "native", adapted, lora=False).to("cuda")
    compilations = Compilations()
    model = written(copy.deepcopy(plain), compilations)
    for step in range(10):
        inputs = batch(seed=step, lengths=[20 + 4 * step, 3, 17 + step])
        inputs = {key: value.to("cuda") for key, value in inputs.items()}
        found, expected = (logits_and_gradients(m, inputs) for m in (model, plain))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert compilations.graphs > 2
    assert compilations.again <= 2
