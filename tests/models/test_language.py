"""Language models in two halves: loss, what packs keep apart, what trains, what is refused."""

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig

from engine.checkpoint import on_host, saved_tensors
from models.args import ModelArgs
from models.build import build_model
from models.heads import is_language_model
from models.language import check_language, end_tokens, head_of, hidden_of, packs
from models.load import load_tokenizer
from models.methods.lora import LoRA
from models.methods.prompt import Prompt
from models.start import open_tokenizer
from tests.models.conftest import CHATS, ROTARY

LORA = LoRA(targets="all-linear", rank=2, alpha=4.0)


def loss_of(model, inputs, labels):
    """Mean over the learned positions, by the two halves."""
    hidden = hidden_of(model, inputs)[labels != -100]  # (n, D)
    return F.cross_entropy(head_of(model).logits(hidden), labels[labels != -100])


@pytest.mark.parametrize("name", CHATS)
def test_loss_and_gradients_by_halves_are_transformers_own(name, make_chat, chat_batch):
    built, _, _ = make_chat(name)
    (inputs, labels), grads = chat_batch, []
    assert all(p.requires_grad for p in built.model.parameters())
    for halves in (True, False):
        if halves:
            loss = loss_of(built.model, inputs, labels)
        else:  # shift_labels are already those of each position
            loss = built.model(**inputs, labels=labels, shift_labels=labels).loss
        loss.backward()
        grads.append([loss, *(p.grad for p in built.model.parameters())])
        built.model.zero_grad(set_to_none=True)
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CHATS)
def test_a_pack_is_its_conversations_alone(name, attention, make_chat):
    """Another first one moves no bit of the second, longer than a sliding window here."""
    built, _, _ = make_chat(name)
    if attention == "eager" or name != "gemma2":  # which has no other
        built.model.set_attn_implementation(attention)
    assert packs(built.model) is None
    first, second, other = torch.randint(3, 300, (3, 9), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(9).repeat(2).expand(2, -1)
    rows = torch.stack([torch.cat([first, second]), torch.cat([other, second])])
    mask = torch.ones_like(rows)
    with torch.no_grad():
        packed = hidden_of(
            built.model, {"input_ids": rows, "position_ids": positions, "attention_mask": mask}
        )
        for index, text in ((slice(0, 9), first), (slice(9, 18), second)):
            alone = hidden_of(built.model, {"input_ids": text[None]})
            torch.testing.assert_close(packed[:1, index], alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(packed[0, 9:], packed[1, 9:])
    assert not torch.equal(packed[0, :9], packed[1, :9])


SMALL = {**ROTARY, "vocab_size": 200, "num_key_value_heads": 4}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("mamba", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),  # a state runs on
        ("qwen3_5_text", LINEAR),  # and so in linear attention
        ("bloom", {"n_layer": 2, "n_head": 4}),  # its positions are a bias, not given ones
    ],
)
def test_architectures_that_mix_a_pack_say_so(kind, values):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **values})
    model = AutoModelForCausalLM.from_config(config).eval()
    check_language(model)
    assert packs(model) == (
        f"in {kind} a conversation moves what is made of the next one in its row"
    )


def test_a_prompt_and_packs_do_not_go_together(make_chat):
    assert "in front of each text" in packs(make_chat(method=Prompt(tokens=3))[0].model)


def test_what_is_no_decoder_is_refused(tiny_tokenizer, tmp_path):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=300, **{k: v for k, v in SMALL.items() if k != "vocab_size"})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    args = ModelArgs(source=str(tmp_path), kind="chat")
    with pytest.raises(ValueError, match="no end token"):
        load_tokenizer(str(tmp_path), chat=True)
    with pytest.raises(ValueError, match="reads what comes after a token too"):
        build_model(args, tiny_tokenizer_with_end(tiny_tokenizer), 0)


def tiny_tokenizer_with_end(tokenizer):
    from copy import deepcopy

    copy = deepcopy(tokenizer)
    copy.eos_token = "[SEP]"
    return copy


def test_a_head_that_does_more_than_a_layer_is_refused(make_chat, monkeypatch):
    built, _, _ = make_chat("gemma2")
    check_language(built.model)
    built.model.config.final_logit_softcapping = None  # now only the model's own forward is told
    monkeypatch.setattr(type(built.model), "forward", doubled(type(built.model).forward))
    with pytest.raises(ValueError, match="makes more of its hidden states than its head"):
        check_language(built.model)


def doubled(plain):
    def forward(self, *args, **inputs):
        output = plain(self, *args, **inputs)
        output.logits = output.logits * 2
        return output

    return forward


def test_what_trains_without_a_part_in_the_answer_is_refused(make_chat):
    built, _, _ = make_chat("llama")
    built.model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing that trains has a part in what 'llama' answers"):
        check_language(built.model)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"head_kind": "linear"}, "answers by its own head"),
        ({"head_dropout": 0.1}, "has none: unset it"),
        ({"num_labels": 2}, "neither labels nor windows"),
        ({"train": "nothing"}, "expected 'all', 'head', 'bias' or 'last:N'"),
    ],
)
def test_a_language_model_takes_no_settings_of_classifiers(values, words, make_chat):
    with pytest.raises(ValueError, match=words):
        make_chat(**values)


def test_weights_without_a_language_head_are_refused(chat_folder, tmp_path, chat_tokenizer):
    AutoModelForCausalLM.from_pretrained(chat_folder("llama")).model.save_pretrained(tmp_path)
    chat_tokenizer.save_pretrained(tmp_path)
    args = ModelArgs(source=str(tmp_path), kind="chat")
    with pytest.raises(ValueError, match=r"no weights for lm_head\.weight"):
        build_model(args, load_tokenizer(str(tmp_path), chat=True), 0)


# What trains


def trained(built):
    return {name for name, p in built.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", ["llama", "smollm", "gpt2"])
def test_beside_lora_nothing_else_of_a_language_model_trains(name, make_chat):
    built, _, _ = make_chat(name, method=LORA)
    assert is_language_model(built.model)
    assert {n.rpartition(".")[2] for n in trained(built)} == {"lora_A", "lora_B"}
    assert not any("lm_head" in n or "embed" in n or "wte" in n for n in trained(built))


def test_the_head_trains_alone_where_it_has_weights_of_its_own(make_chat):
    assert trained(make_chat("llama", train="head")[0]) == {"lm_head.weight"}
    assert "lm_head.weight" in trained(make_chat("llama", train="head", method=LORA)[0])
    with pytest.raises(ValueError, match="by the table that they come in by"):
        make_chat("smollm", train="head")


def test_last_layers_train_with_the_last_norm_and_without_the_head(make_chat):
    for name in ("llama", "smollm"):
        names = trained(make_chat(name, train="last:1")[0])
        assert {n.split(".")[1] for n in names} == {"layers", "norm"}
        assert all(n.startswith(("model.layers.1.", "model.norm")) for n in names)


def test_biases_train_alone(make_chat):
    names = trained(make_chat("qwen2", train="bias")[0])
    assert names
    assert all(name.endswith("bias") for name in names)


def test_tied_embeddings_stay_one_tensor_and_are_saved_once(make_chat, chat_batch):
    built, _, _ = make_chat("smollm")
    model = built.model
    torch.optim.AdamW(model.parameters(), lr=0.1)
    loss_of(model, *chat_batch).backward()
    torch.optim.AdamW(model.parameters(), lr=0.1).step()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    saved = on_host(saved_tensors(model))
    assert "model.embed_tokens.weight" in saved
    assert "lm_head.weight" not in saved


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
@pytest.mark.parametrize("method", [None, LORA])
def test_recomputed_activations_change_no_gradient(name, method, make_chat, chat_batch):
    grads = []
    for recompute in (False, True):
        built, _, _ = make_chat(name, method=method, activation_checkpointing=recompute)
        model = built.model.train()
        torch.manual_seed(2)
        loss_of(model, *chat_batch).backward()
        grads.append([p.grad for p in model.parameters() if p.requires_grad])
        assert model.base_model.gradient_checkpointing == recompute
    assert all(g is not None for g in grads[1])
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


# The tokenizer


def test_a_missing_pad_token_is_the_end_token_and_the_model_does_not_grow(make_chat):
    built, _, tokenizer = make_chat("llama")
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
    assert built.model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert built.model.config.pad_token_id == tokenizer.eos_token_id == 2
    assert tokenizer.model_max_length == 64


def test_a_missing_pad_token_is_the_one_that_the_config_names(chat_folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(chat_folder("llama"))
    model.config.pad_token_id = 0
    model.save_pretrained(tmp_path)
    load_tokenizer(str(chat_folder("llama")), chat=False)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((chat_folder("llama") / name).read_bytes())
    assert open_tokenizer(str(tmp_path), None, 1, chat=True).pad_token == "<|endoftext|>"


def test_a_bag_of_ngrams_does_not_chat():
    with pytest.raises(ValueError, match="writes no text"):
        open_tokenizer("ngrams", None, 1, chat=True)


def test_new_words_begin_as_the_mean_of_others_and_only_where_they_learn(chat_folder):
    source = str(chat_folder("smollm"))
    tokenizer = load_tokenizer(source, chat=True)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    built = build_model(ModelArgs(source=source, kind="chat"), tokenizer, 0)
    table = built.model.lm_head.weight
    assert table is built.model.get_input_embeddings().weight
    torch.testing.assert_close(table[rows], table[:rows].mean(0))
    assert any("as the mean of them" in note for note in built.notes)
    with pytest.raises(ValueError, match=r"no row for: <\|tool\|>"):
        build_model(ModelArgs(source=source, kind="chat", method=LORA), tokenizer, 0)


# Settings of generation


def test_generation_keeps_the_sources_settings_and_ends_by_what_is_learned(chat_folder, tmp_path):
    source = chat_folder("llama")
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    # published as it often is: a temperature, and no word that it draws
    path = tmp_path / "generation_config.json"
    path.write_text(
        '{"temperature": 0.6, "do_sample": false, "eos_token_id": [0, 1]}', encoding="utf-8"
    )
    tokenizer = load_tokenizer(str(tmp_path), chat=True)
    built = build_model(ModelArgs(source=str(tmp_path), kind="chat"), tokenizer, 0)
    settings = built.model.generation_config
    assert settings.temperature == 0.6
    assert settings.eos_token_id == end_tokens(built.model, tokenizer) == [2, 0, 1]
    assert settings.do_sample
    assert any("do_sample" in note for note in built.notes)
    path.write_text('{"max_new_tokens": -1}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"generation_config\.json in .* (contradicts|cannot)"):
        build_model(ModelArgs(source=str(tmp_path), kind="chat"), tokenizer, 0)
