"""Decoders on streams: hidden states and gradients as in stock transformers, padded or packed, and
generation with a cache on the same model."""

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from models.fast.layout import layout_of, stream_length
from models.fast.speed import SpeedArgs, speed_up
from models.fast.streams import lay_out

CPU, FP32 = torch.device("cpu"), torch.float32
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
SIZES = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
CONFIGS = {
    "gemma": ("Gemma", {**GROUPED, "num_key_value_heads": 1, "head_dim": 16}),
    "gpt2": ("GPT2", {**SIZES, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "llama": ("Llama", GROUPED),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": None}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 16}),
}
NAMES = list(CONFIGS)
LENGTHS = (11, 1, 6)
PACKS = ([5, 6], [3, 1, 4], [11])  # conversations of each row


def config_of(name, **more):
    family, values = CONFIGS[name]
    return getattr(transformers, f"{family}Config")(**values | more)


@pytest.fixture
def decoder(stir):
    """decoder(name, kind=AutoModelForCausalLM, fast=True, **switches): the same weights on each
    call; evaluation mode."""

    def make(name, kind=AutoModelForCausalLM, fast=True, config=None, **switches):
        torch.manual_seed(0)
        model = kind.from_config(config or config_of(name), attn_implementation="sdpa").eval()
        stir(model)
        if fast:
            speed_up(model, SpeedArgs(**{"native": "off"} | switches), CPU, FP32)
            assert model.config._attn_implementation.startswith("openloop_")
        return model

    return make


def draw_ids(rows, width):
    return torch.randint(3, 50, (rows, width), generator=torch.Generator().manual_seed(1))


def padded(side="right", lengths=LENGTHS):
    """input_ids and attention_mask (B, T)."""
    width = max(lengths)
    mask = torch.stack([(torch.arange(width) < n).long() for n in lengths])
    mask = mask.flip(1) if side == "left" else mask
    return {"input_ids": draw_ids(len(lengths), width) * mask, "attention_mask": mask}


def packed():
    """Rows of several conversations, as data/ makes them."""
    width = max(map(sum, PACKS))
    positions, mask = (torch.zeros(len(PACKS), width, dtype=torch.long) for _ in range(2))
    for row, lengths in enumerate(PACKS):
        mask[row, : sum(lengths)] = 1
        positions[row, : sum(lengths)] = torch.cat([torch.arange(n) for n in lengths])
    ids = draw_ids(len(PACKS), width) * mask
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def hidden_and_gradients(model, inputs, real):
    """Hidden states of the real tokens, and the parameters' gradients of a sum over them."""
    model.zero_grad()
    hidden = model.base_model(**inputs).last_hidden_state[real.bool()]  # (N, D)
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    (hidden * weights).mean().backward()
    named = model.named_parameters()
    return hidden.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_hidden_states_and_gradients_equal_the_stock_ones(decoder, name, side, native):
    inputs = padded(side)
    found = hidden_and_gradients(decoder(name, native=native), inputs, inputs["attention_mask"])
    stock = decoder(name, fast=False)
    expected = hidden_and_gradients(stock, inputs, inputs["attention_mask"])
    torch.testing.assert_close(found, expected, **CLOSE)
    assert len(found[1]) > 15


@pytest.fixture(params=["on", "off"])
def native(request):
    if request.param == "on":
        request.getfixturevalue("native_kernels")
    return request.param


@pytest.mark.parametrize("name", NAMES)
def test_packed_conversations_equal_the_stock_ones_alone(decoder, name, native):
    """Against stock on each conversation by itself: nothing of a pack reaches another."""
    inputs = packed()
    real = inputs["attention_mask"]
    fast, stock = decoder(name, native=native), decoder(name, fast=False)
    found = hidden_and_gradients(fast, inputs, real)
    alone = []
    for row, lengths in enumerate(PACKS):
        start = 0
        for length in lengths:
            ids = inputs["input_ids"][row : row + 1, start : start + length]
            alone.append(stock.base_model(input_ids=ids).last_hidden_state[0])
            start += length
    expected = torch.cat(alone)
    torch.testing.assert_close(found[0], expected.detach(), **CLOSE)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (expected * weights).mean().backward()
    gradients = {n: p.grad for n, p in stock.named_parameters() if p.grad is not None}
    torch.testing.assert_close(found[1], gradients, **CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_a_pack_needs_neither_mask_nor_layout(decoder, name):
    inputs, model = packed(), decoder(name)
    real = inputs["attention_mask"].bool()
    expected = model.base_model(**inputs).last_hidden_state[real]
    laid_out = lay_out({"inputs": inputs}, 0)["inputs"]
    assert torch.equal(model.base_model(**laid_out).last_hidden_state[real], expected)
    del inputs["attention_mask"]
    torch.testing.assert_close(model.base_model(**inputs).last_hidden_state[real], expected)


def test_changing_one_conversation_moves_no_bit_of_another(decoder, native):
    inputs, model = packed(), decoder("llama", native=native)
    before = model.base_model(**inputs).last_hidden_state
    changed = inputs["input_ids"].clone()
    changed[0, :5] = draw_ids(9, 5)[8]
    after = model.base_model(**inputs | {"input_ids": changed}).last_hidden_state
    assert not torch.allclose(before[0, :5], after[0, :5], atol=1e-3)
    assert torch.equal(before[0, 5:], after[0, 5:])
    assert torch.equal(before[1:], after[1:])


def test_logits_of_packs_come_by_the_stock_head(decoder):
    inputs = packed()
    real = inputs["attention_mask"].bool()
    found = decoder("llama")(**inputs).logits[real]
    stock = decoder("llama", fast=False)
    del inputs["attention_mask"]  # so that transformers looks for packs; with a cache it does not
    torch.testing.assert_close(stock(**inputs, use_cache=False).logits[real], found, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["left", "none"])
def test_generation_with_a_cache_gives_the_stock_tokens(decoder, name, side, native):
    inputs = padded("left" if side == "none" else side, (7, 7, 7) if side == "none" else LENGTHS)
    if side == "none":
        del inputs["attention_mask"]
    wanted = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": None}
    found = decoder(name, native=native).generate(**inputs, **wanted)
    assert torch.equal(found, decoder(name, fast=False).generate(**inputs, **wanted))
    assert found.shape[1] == inputs["input_ids"].shape[1] + 9


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_several_tokens_behind_a_cache_see_what_stock_lets_them_see(decoder, name, side, native):
    """As a second turn of a chat: q is shorter than k."""
    inputs = padded(side, (11, 4, 9))
    first = {key: value[:, :6] for key, value in inputs.items()}
    real = inputs["attention_mask"][:, 6:].bool()
    outs = []
    for model in (decoder(name, native=native), decoder(name, fast=False)):
        cache = model(**first, use_cache=True).past_key_values
        assert cache.get_seq_length() == 6
        mask, ids = inputs["attention_mask"], inputs["input_ids"][:, 6:]
        out = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
        outs.append(out.logits[real])
    torch.testing.assert_close(*outs, **CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_a_token_behind_padding_that_follows_a_prompt_sees_the_prompt(decoder, name, native):
    """As a batch goes on whose prompts were padded at their ends."""
    inputs = padded("right")
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 1, dtype=torch.long)], 1)
    outs = []
    for model in (decoder(name, native=native), decoder(name, fast=False)):
        cache = model(**inputs, use_cache=True).past_key_values
        out = model(
            input_ids=draw_ids(3, 1), attention_mask=mask, past_key_values=cache, use_cache=True,
            position_ids=torch.tensor(LENGTHS).unsqueeze(1),
        )  # fmt: skip
        outs.append(out.logits)
    torch.testing.assert_close(*outs, **CLOSE)


def test_a_cache_with_room_left_is_not_read_beyond_its_end(decoder, native):
    inputs = padded("left")
    wanted = {"max_new_tokens": 5, "do_sample": False, "cache_implementation": "static"}
    found = decoder("llama", native=native).generate(**inputs, **wanted)
    assert torch.equal(found, decoder("llama", fast=False).generate(**inputs, **wanted))


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
def test_hidden_states_of_all_layers_go_the_plain_way(decoder, name):
    inputs = padded()
    real = inputs["attention_mask"].bool()
    found, expected = (
        decoder(name, fast=fast).base_model(**inputs, output_hidden_states=True).hidden_states
        for fast in (True, False)
    )
    assert len(found) == 3
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a[real], b[real], **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_the_architectures_own_classifier_gives_the_stock_logits(decoder, name, native):
    found = []
    for fast in (True, False):
        kind = AutoModelForSequenceClassification
        model = decoder(name, kind, fast=fast, native=native)
        logits = model(**padded()).logits
        logits.square().sum().backward()
        named = model.named_parameters()
        found.append((logits.detach(), {n: p.grad for n, p in named if p.grad is not None}))
    assert found[0][0].shape == (3, 2)
    torch.testing.assert_close(found[0], found[1], **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_linear_layers_see_the_filled_stream_only(decoder, name):
    model, seen = decoder(name), {}
    for layer, module in model.base_model.named_modules():
        if isinstance(module, nn.Linear | transformers.pytorch_utils.Conv1D):
            module.register_forward_hook(
                lambda _, given, out, layer=layer: seen.update({layer: out.shape[:-1].numel()})
            )
    model.base_model(**padded())
    assert len(seen) >= 8
    assert set(seen.values()) == {stream_length(18)}


@pytest.mark.parametrize(
    ("name", "more", "reason"),
    [
        ("mistral", {"sliding_window": 16}, "sliding_attention"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
         "sliding_attention"),
        ("gpt2", {"add_cross_attention": True}, "encoder"),
        ("llama", {"is_causal": False}, "ahead"),
    ],
)  # fmt: skip
def test_what_our_attention_has_not_keeps_stock_attention_and_says_why(name, more, reason):
    model = AutoModelForCausalLM.from_config(config_of(name, **more), attn_implementation="sdpa")
    inputs = padded()
    before = model.eval()(**inputs).logits
    speed = speed_up(model, SpeedArgs(native="off"), CPU, FP32)
    assert model.config._attn_implementation == "sdpa"
    assert any("attention: stock" in note and reason in note for note in speed.notes)
    assert "batches" not in speed.resolved
    torch.testing.assert_close(model(**inputs).logits, before, **CLOSE)


def test_models_with_attention_of_their_own_keep_it():
    config = transformers.Gemma2Config(**GROUPED, head_dim=16)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    speed = speed_up(model, SpeedArgs(native="off"), CPU, FP32)
    assert any("gemma2 is not among" in note for note in speed.notes)


def test_spans_of_packs_begin_where_positions_start_again():
    inputs = packed()
    layout = layout_of(inputs["attention_mask"], inputs["position_ids"])
    assert layout.spans == [(0, 5), (5, 11), (11, 14), (14, 15), (15, 19), (19, 30)]
    assert layout.ends.tolist() == [0, 5, 11, 14, 15, 19, 30, 32]
    assert layout.longest == 11
    assert layout.ids[0, :11].tolist() == list(range(11))


def test_positions_behind_virtual_tokens_are_no_packs():
    inputs = padded()
    behind = torch.arange(11).expand(3, -1) + 4
    assert layout_of(inputs["attention_mask"], behind).spans == [(0, 11), (11, 12), (12, 18)]
    assert layout_of(inputs["attention_mask"]).spans == [(0, 11), (11, 12), (12, 18)]
