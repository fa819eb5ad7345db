"""Prefix tuning: keys and values before each text's own, on every path, and PEFT's numbers."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from models.cut import find_cut
from models.export import export_model, load_exported
from models.fast.cuda.attention import attend_padded
from models.fast.layout import layout_of
from models.fast.speed import SpeedArgs, speed_up
from models.methods.method import added_modules, added_parameters, merge
from models.methods.prefix import PrefixTuning
from models.methods.prefixed import prefixes_of

PEFT = ["bert", "roberta", "gpt2", "llama"]  # models that PEFT has a prefix for
NAMES = [*PEFT, "distilbert"]
P = 3
SMALL = {
    "vocab_size": 40, "hidden_size": 16, "embedding_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32,
    "max_position_embeddings": 64, "pad_token_id": 0, "sliding_window": 4, "local_attention": 4,
    "global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_layer_gets_keys_and_values_and_a_gradient_reaches_all(name, make, encode, logits_of):
    built, _, tokenizer = make(name, method=PrefixTuning(P))
    logits_of(built.model, encode(tokenizer)).square().sum().backward()
    names = [n for names in added_parameters(built.model).values() for n in names]
    assert len(names) == 2 * 2
    for n in names:
        parameter = built.model.get_parameter(n)
        assert parameter.shape == (P, 2, 8)
        assert parameter.grad.any()


def test_attention_is_the_equation_over_prefix_and_text(make, encode):
    """softmax(Q [keys; K]^T / sqrt(d)) [values; V], by hand for each head of each text."""
    built, _, tokenizer = make("distilbert", method=PrefixTuning(P), dropout=0.0)
    batch = encode(tokenizer)
    layer, seen = built.model.distilbert.transformer.layer[0].attention, {}
    for name in ("q_lin", "k_lin", "v_lin"):
        getattr(layer, name).register_forward_hook(
            lambda module, args, out, name=name: seen.__setitem__(name, out)
        )
    layer.out_lin.register_forward_pre_hook(lambda module, args: seen.__setitem__("out", args[0]))
    built.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        for head in range(2):
            part = slice(8 * head, 8 * head + 8)
            q, k, v = (seen[n][row, :length, part] for n in ("q_lin", "k_lin", "v_lin"))
            keys = torch.cat([layer.prefix.keys[:, head], k])
            values = torch.cat([layer.prefix.values[:, head], v])
            expected = (q @ keys.T / 8**0.5).softmax(-1) @ values
            torch.testing.assert_close(seen["out"][row, :length, part], expected)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_decoder_starts_as_if_the_drawn_words_stood_before_the_text(name, make, encode):
    method = PrefixTuning(P)
    built, _, tokenizer = make(name, method=method, seed=7, head_kind="linear")
    plain, _, _ = make(name, seed=7, head_kind="linear")
    words = method.words(plain.model.backbone, 7)
    ids = encode(tokenizer)["input_ids"][2:]  # the longest: no padding
    hidden = built.model.backbone(input_ids=ids, attention_mask=torch.ones_like(ids))
    longer = torch.cat([words, ids], 1)
    expected = plain.model.backbone(input_ids=longer, attention_mask=torch.ones_like(longer))
    torch.testing.assert_close(hidden.last_hidden_state, expected.last_hidden_state[:, P:])


def test_a_prefix_longer_than_the_model_has_positions_starts_from_several_texts(make):
    built, _, _ = make("distilbert", method=PrefixTuning(1100))  # of 512 positions
    assert prefixes_of(built.model)[0].keys.shape == (1100, 2, 8)


def test_a_prefix_takes_positions_where_kept_keys_would(make):
    assert make("bert", method=PrefixTuning(20))[2].model_max_length == 44
    assert make("distilbert", method=PrefixTuning(20))[2].model_max_length == 128
    with pytest.raises(ValueError, match=r"prefix.tokens takes 63 of the model's 64 positions"):
        make("bert", method=PrefixTuning(63))


@pytest.mark.parametrize("kind", ["native", "linear"])
@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("switches", [{}, {"unpad": False}, {"qkv": False, "norm": False}])
def test_fast_paths_compute_the_same(name, kind, switches, make, stir, encode, speed_up_alike):
    pool = {} if kind == "native" else {"head_pool": "cls"}
    built, _, tokenizer = make(name, method=PrefixTuning(P), dropout=0.0, head_kind=kind, **pool)
    stir(built.model)
    speed = speed_up_alike(built.model, dict(encode(tokenizer)), **switches)
    assert speed.streams == switches.get("unpad", True)


def test_layers_that_are_one_share_a_prefix_and_run_on_streams(encoder, stir):
    """ALBERT's, by the attention that is registered, not the written out one."""
    model = encoder("albert", AutoModelForSequenceClassification)
    model.set_attn_implementation("sdpa")
    PrefixTuning(P).inject(model, 0)
    assert len(added_modules(model)) == 1
    fast = copy.deepcopy(model)
    assert speed_up(fast, SpeedArgs(), torch.device("cpu"), torch.float32).streams
    ids = torch.tensor([[5, 6, 7, 8], [9, 8, 0, 0]])
    mask = (ids != 0).long()
    mine, theirs = (m(input_ids=ids, attention_mask=mask).logits for m in (model, fast))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    prefixes_of(model)[0].keys.data += 1
    assert not torch.allclose(model(input_ids=ids, attention_mask=mask).logits, mine)


@pytest.mark.parametrize("name", ["modernbert", "electra", "qwen2", "mistral"])
def test_windows_rotary_positions_and_few_key_heads_take_a_prefix(name):
    """A text is answered alike alone and padded, and each of the learned numbers is read."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **SMALL)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    PrefixTuning(P).inject(model, 0)
    heads = 1 if name in ("qwen2", "mistral") else 2
    assert prefixes_of(model)[0].keys.shape == (P, heads, 8)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12], [5, 6, 7, 0, 0, 0, 0, 0]])
    logits = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
    alone = model(input_ids=ids[1:, :3], attention_mask=torch.ones(1, 3, dtype=torch.long)).logits
    torch.testing.assert_close(logits[1:], alone, rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    for prefix in prefixes_of(model):
        assert prefix.keys.grad.abs().amin() > 0 or name == "modernbert"
        assert prefix.values.grad.abs().amin() > 0


def test_fewer_key_heads_have_pefts_layout(tmp_path):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("qwen2", **SMALL))
    base = copy.deepcopy(model).eval()
    config = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=P)
    theirs = peft.get_peft_model(base, config).eval()
    theirs.save_pretrained(tmp_path)
    PrefixTuning(P).inject(model.eval(), 0)
    PrefixTuning(P).read(model, tmp_path)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    torch.testing.assert_close(model(**inputs).logits, theirs(**inputs).logits)


def test_nothing_is_kept_of_a_model_with_a_prefix_in_each_layer(make):
    built, _, _ = make("bert", method=PrefixTuning(P), train="head")
    assert find_cut(built.model)[1].startswith("what learns begins in the first layer")


@pytest.mark.parametrize("first_only", [False, True])
def test_padded_attention_of_a_stream_reads_the_prefix_of_each_text(first_only):
    """What a GPU runs where no kernel takes the head size, against softmax by hand."""
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]])
    layout = layout_of(mask).with_prefix(P)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(layout.ids.shape[1], 2, 5, generator=draw) for _ in range(3))
    keys, values = (torch.randn(P, 2, 5, generator=draw) for _ in range(2))
    longer = [layout.keys.insert(keys, k), layout.keys.insert(values, v)]
    asked = q[layout.firsts] if first_only else q
    out = attend_padded(asked, *longer, layout, first_only, 0.3, 0.0)
    for text, (start, stop) in enumerate([(0, 4), (4, 6)]):
        K, V = torch.cat([keys, k[start:stop]]), torch.cat([values, v[start:stop]])
        scores = torch.einsum("mhd,khd->hmk", q[start:stop], K) * 0.3
        expected = torch.einsum("hmk,khd->mhd", scores.softmax(-1), V)
        there = out[text : text + 1] if first_only else out[start:stop]
        torch.testing.assert_close(there, expected[:1] if first_only else expected)
        assert layout.keys.spans[2 * text] == (start + P * text, stop + P * (text + 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_prefix_is_read_back_to_the_bit(name, make, stir, encode, logits_of, tmp_path):
    built, args, tokenizer = make(name, method=PrefixTuning(P), train="last:1")
    stir(built.model)
    expected = logits_of(built.model, encode(tokenizer))
    export_model(built, args, tokenizer, tmp_path)
    model, again, args_again = load_exported(tmp_path)
    assert args_again == args
    assert torch.equal(logits_of(model, encode(again)), expected)


def test_gradients_are_the_same_where_activations_are_recomputed(make, stir, encode, logits_of):
    gradients = []
    for again in (False, True):
        built, _, tokenizer = make(
            "bert", method=PrefixTuning(P), dropout=0.0, activation_checkpointing=again
        )
        stir(built.model)
        logits_of(built.model.train(), encode(tokenizer)).square().sum().backward()
        gradients.append([p.grad for p in built.model.parameters() if p.requires_grad])
    torch.testing.assert_close(*gradients)


def test_a_prefix_cannot_be_merged(make):
    with pytest.raises(ValueError, match="a prefix cannot be merged"):
        merge(make("bert", method=PrefixTuning(P))[0].model)


def test_attention_that_takes_no_more_keys_is_refused_with_the_reason():
    import transformers

    deberta = transformers.DebertaConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    fnet = transformers.FNetConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, intermediate_size=32
    )
    t5 = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    for config, said in ((deberta, "more keys"), (fnet, "more keys"), (t5, "has a decoder")):
        model = AutoModelForSequenceClassification.from_config(config)
        with pytest.raises(ValueError, match=f"prefix: .*{said}"):
            PrefixTuning(P).inject(model, 0)


# ---- PEFT ---------------------------------------------------------------------------------------


def alone(batch):
    """Each text without padding: of a decoder PEFT reads the last column, be it padding."""
    lengths = batch["attention_mask"].sum(1).tolist()
    return [
        {n: t[i : i + 1, :k] for n, t in batch.items() if n != "token_type_ids"}
        for i, k in enumerate(lengths)
    ]


def plain_base(name, folders, tokenizer):
    base = AutoModelForSequenceClassification.from_pretrained(folders[name], num_labels=2)
    base.resize_token_embeddings(len(tokenizer))
    base.config.pad_token_id = tokenizer.pad_token_id
    return base


@pytest.mark.parametrize("name", PEFT)
def test_peft_computes_the_same_from_our_files(name, make, folders, stir, encode, tmp_path):
    peft = pytest.importorskip("peft")
    built, args, tokenizer = make(name, method=PrefixTuning(P))
    stir(built.model)
    export_model(built, args, tokenizer, tmp_path)
    theirs = peft.PeftModel.from_pretrained(plain_base(name, folders, tokenizer), tmp_path).eval()
    for inputs in [*alone(encode(tokenizer)), *([dict(encode(tokenizer))] * (name == "bert"))]:
        torch.testing.assert_close(theirs(**inputs).logits, built.model(**inputs).logits)


@pytest.mark.parametrize("name", PEFT)
def test_pefts_gradients_and_files_are_ours(name, make, folders, stir, encode, tmp_path):
    peft = pytest.importorskip("peft")
    built, args, tokenizer = make(name, method=PrefixTuning(P))
    config = peft.PrefixTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=P, modules_to_save=["pooler"]
    )
    theirs = peft.get_peft_model(plain_base(name, folders, tokenizer), config).eval()
    stir(theirs)
    theirs.save_pretrained(tmp_path)
    filled = args.method.read(built.model, tmp_path)
    assert {n for n, p in built.model.named_parameters() if p.requires_grad} <= filled
    for inputs in alone(encode(tokenizer)):
        ours, expected = built.model(**inputs).logits, theirs(**inputs).logits
        torch.testing.assert_close(ours, expected)
        for logits in (ours, expected):
            logits.square().sum().backward()
    gradient = theirs.prompt_encoder["default"].embedding.weight.grad
    assert gradient.any()
    mine = [t.grad.flatten(1) for p in prefixes_of(built.model) for t in (p.keys, p.values)]
    torch.testing.assert_close(torch.cat(mine, 1), gradient, atol=1e-6, rtol=1e-4)


def test_the_backbone_below_a_head_of_ours_opens_in_peft(make, folders, stir, encode, tmp_path):
    peft = pytest.importorskip("peft")
    built, args, tokenizer = make("bert", method=PrefixTuning(P), head_kind="linear")
    stir(built.model)
    export_model(built, args, tokenizer, tmp_path)
    base = AutoModel.from_pretrained(folders["bert"])
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    batch = encode(tokenizer)
    hidden = built.model.backbone(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(hidden[real], theirs(**batch).last_hidden_state[real])


def test_an_adapter_with_a_network_beside_it_is_refused(make, tmp_path):
    built, args, tokenizer = make("bert", method=PrefixTuning(P))
    export_model(built, args, tokenizer, tmp_path)
    path = tmp_path / "adapter_config.json"
    text = path.read_text(encoding="utf-8").replace('projection": false', 'projection": true')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="is of 'prefix_projection'; expected PREFIX_TUNING"):
        args.method.read(built.model, tmp_path)
