"""The formula of arithmetic_decoder.py counts what torch counts of the work that is needed."""

import pytest
import torch
from arithmetic_decoder import backward_flops, chat_work, decoder_shape, forward_flops
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import rotate_half

T, RANK = 7, 2
LEARNED = [2, 3, 5]  # positions of a row
KINDS = {
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 16, "resid_pdrop": 0.0,
             "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "llama": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 24},
}  # fmt: skip
LORA = {"task_type": "CAUSAL_LM", "r": RANK, "target_modules": "all-linear"}


def make_model(kind, trains):
    """(the model, its shape): PEFT's adapters learn, or all, or nothing."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=30, bos_token_id=0, eos_token_id=0, initializer_range=0.3, **KINDS[kind]
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    if trains == "all":
        return model, decoder_shape(config, 0, trains)
    adapted = get_peft_model(model, LoraConfig(**LORA))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # which begins at nothing
            torch.nn.init.normal_(parameter)
        if trains == "nothing":
            parameter.requires_grad_(False)
    return adapted.get_base_model(), decoder_shape(config, RANK, trains)


def attend(q, k, v, seen):
    """Each query with what it sees and no more: q (heads, n, d), k and v (groups, T, d)."""
    shared, scale = len(q) // len(k), q.shape[-1] ** -0.5
    return torch.stack(
        [
            torch.cat(
                [
                    torch.softmax(q[h, i : i + 1] @ k[h // shared, :n].mT * scale, -1)
                    @ v[h // shared, :n]
                    for i, n in enumerate(seen)
                ]
            )
            for h in range(len(q))
        ]
    )  # (heads, n, d)


def needed_attention(module, query, key, value, attention_mask, **others):
    """`attend` as transformers calls an attention function, of one row."""
    out = attend(query[0], key[0], value[0], range(1, query.shape[2] + 1))
    return out[None].transpose(1, 2), None


def split(x, size):
    """(n, heads * size) -> (heads, n, size)."""
    return x.unflatten(-1, (-1, size)).transpose(0, 1)


def last_llama(layer, hidden, rotary):
    """The last layer of a row at LEARNED: hidden (T, H) -> (n, H)."""
    own, normed = layer.self_attn, layer.input_layernorm(hidden)
    cos, sin = (part[0] for part in rotary)  # (T, d)

    def turn(x, places):
        return x * cos[places] + rotate_half(x) * sin[places]

    q = turn(split(own.q_proj(normed[LEARNED]), own.head_dim), LEARNED)
    k = turn(split(own.k_proj(normed), own.head_dim), slice(None))
    v = split(own.v_proj(normed), own.head_dim)
    mixed = attend(q, k, v, [place + 1 for place in LEARNED])
    hidden = hidden[LEARNED] + own.o_proj(mixed.transpose(0, 1).flatten(1))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def last_gpt2(layer, hidden, rotary):
    """The same of GPT-2, whose query, key and value are one layer."""
    own, normed, width = layer.attn, layer.ln_1(hidden), hidden.shape[1]
    fused = own.c_attn
    base = getattr(fused, "base_layer", fused)  # PEFT's adapter is around it
    q = normed[LEARNED] @ base.weight[:, :width] + base.bias[:width]
    kv = normed @ base.weight[:, width:] + base.bias[width:]
    if base is not fused:
        up = fused.scaling["default"] * fused.lora_B["default"].weight  # (3 H, R)
        low = fused.lora_A["default"](normed)
        q = q + low[LEARNED] @ up[:width].mT
        kv = kv + low @ up[width:].mT
    k, v = kv.chunk(2, -1)
    parts = (split(x, own.head_dim) for x in (q, k, v))
    mixed = attend(*parts, [place + 1 for place in LEARNED])
    hidden = hidden[LEARNED] + own.c_proj(mixed.transpose(0, 1).flatten(1))
    return hidden + layer.mlp(layer.ln_2(hidden))


def needed_logits(kind, model, ids, rotary):
    """(n, V) of one row at LEARNED, by the model's own modules: of the last layer and of the head
    only what is asked for."""
    positions = torch.arange(T)[None]
    if kind == "gpt2":
        inner = model.transformer
        hidden, layers = inner.wte(ids) + inner.wpe(positions), inner.h
        last, norm, more = last_gpt2, inner.ln_f, {}
    else:
        inner = model.model
        hidden, layers, more = inner.embed_tokens(ids), inner.layers, {}
        last, norm, more = last_llama, inner.norm, {"position_embeddings": rotary}
    for layer in layers[:-1]:
        out = layer(hidden, **more)
        hidden = out[0] if isinstance(out, tuple) else out
    return model.lm_head(norm(last(layers[-1], hidden[0], rotary)))


@pytest.fixture
def needed(monkeypatch):
    """needed(kind, model, ids) -> logits, as needed_logits gives them."""
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "needed", needed_attention)

    def run(kind, model, ids, rotary):
        model.config._attn_implementation = "needed"
        logits = needed_logits(kind, model, ids, rotary)
        model.config._attn_implementation = "sdpa"
        return logits

    return run


def rotary_of(kind, model):
    """(cos, sin), each (1, T, d): a table, no arithmetic of the step."""
    if kind == "gpt2":
        return None
    return model.model.rotary_emb(torch.zeros(1, T, 1), torch.arange(T)[None])


def counted(run):
    """What torch counts while `run` runs."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trains", ["lora", "all"])
def test_the_needed_arithmetic_gives_the_whole_models_logits(kind, trains, needed):
    model, _ = make_model(kind, trains)
    ids = torch.arange(T)[None]
    logits = needed(kind, model.eval(), ids, rotary_of(kind, model))
    torch.testing.assert_close(logits, model(input_ids=ids).logits[0, LEARNED])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trains", ["nothing", "lora", "all"])
def test_a_step_is_counted_as_torch_counts_it(kind, trains, needed):
    model, shape = make_model(kind, trains)
    ids, outputs, rotary = torch.arange(T)[None], [], rotary_of(kind, model)
    labels = torch.full((1, T), -100)
    labels[0, LEARNED] = 1
    work = chat_work({"attention_mask": torch.ones_like(ids)}, labels).tolist()
    assert work == [T, T * (T + 1) // 2, 3, 3 + 4 + 6]
    forward = counted(lambda: outputs.append(needed(kind, model, ids, rotary).sum()))
    assert forward_flops(shape, work) == forward
    backward = 0 if trains == "nothing" else counted(outputs[0].backward)
    assert backward_flops(shape, work) == backward
    assert shape.step_flops(work + work) == 2 * (forward + backward)  # two micro-batches


def test_packs_and_padded_rows_count_the_same():
    labels = torch.tensor([[-100, 5, 6, -100], [7, -100, -100, -100]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    padded = chat_work({"attention_mask": mask}, labels)
    places = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 0]])
    real = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]])
    flat = torch.tensor([[-100, 5, 6, -100, 7, -100, -100, -100]])
    packed = chat_work({"attention_mask": real, "position_ids": places}, flat)
    bare = chat_work({"position_ids": places[:, :6]}, flat[:, :6])
    assert padded.tolist() == packed.tolist() == bare.tolist() == [6, 13, 3, 6]


def test_an_architecture_that_is_not_counted_is_named():
    with pytest.raises(ValueError, match="'phi' is not counted here; gpt2, llama"):
        decoder_shape(AutoConfig.for_model("phi"), 0, "all")
