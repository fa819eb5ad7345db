"""Prompt tuning: what stands in front of a text, what heads read of it, and PEFT's numbers."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from models.architectures import reads_last
from models.cut import find_cut
from models.export import export_model, load_exported
from models.heads import transformers_model
from models.methods.method import added_modules, merge
from models.methods.prompt import Prompt
from models.methods.virtual import lengthen, shorten
from models.snippet import loading_snippet
from models.texts import Texts

NAMES = ["bert", "distilbert", "roberta", "gpt2", "llama"]
P = 3
SMALL = {
    "vocab_size": 40, "hidden_size": 16, "embedding_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64,
    "pad_token_id": 1,
}  # fmt: skip
WINDOWS = {"local_attention": 4, "global_attn_every_n_layers": 2}  # of ModernBERT


def soft_of(model):
    (soft,) = added_modules(model).values()
    return soft


def test_virtual_tokens_stand_before_the_first_real_one_on_either_side_of_padding():
    ids = torch.tensor([[5, 6, 7], [5, 0, 0], [0, 0, 7]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 1]])
    longer = lengthen({"input_ids": ids, "attention_mask": mask, "token_type_ids": mask}, 2, 100)
    assert longer["input_ids"].tolist() == [
        [100, 101, 5, 6, 7], [100, 101, 5, 0, 0], [0, 0, 100, 101, 7]
    ]  # fmt: skip
    assert longer["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0], [0, 0, 1, 1, 1]]
    assert longer["token_type_ids"].tolist() == [
        [0, 0, 1, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]
    ]  # fmt: skip
    hidden = longer["input_ids"].unsqueeze(-1).float()
    assert torch.equal(shorten(hidden, longer["attention_mask"], 2)[..., 0].long(), ids)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_sees_the_prompt_as_so_many_more_words(name, make, encode):
    """The hidden states are those of the plain model on the same vectors."""
    built, _, tokenizer = make(name, method=Prompt(tokens=P), head_kind="linear", head_pool="mean")
    plain, _, _ = make(name, head_kind="linear", head_pool="mean")
    batch = encode(tokenizer)
    words = plain.model.backbone.get_input_embeddings()(batch["input_ids"])
    prompt = soft_of(built.model).prompt.expand(len(words), -1, -1)
    ones = torch.ones(len(words), P, dtype=torch.long)
    mask = torch.cat([ones, batch["attention_mask"]], 1)
    expected = plain.model.backbone(
        inputs_embeds=torch.cat([prompt, words], 1), attention_mask=mask
    ).last_hidden_state[:, P:]
    hidden = built.model.backbone(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(hidden[real], expected[real])


@pytest.mark.parametrize("name", ["deberta", "electra", "modernbert", "mpnet"])
def test_positions_of_every_kind_count_the_prompt(name):
    """Relative ones, rotary ones, ones counted from padding, and a table narrower than the model:
    the hidden states are those of the same vectors as inputs_embeds."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **SMALL | {"relative_attention": True} | WINDOWS)
    plain = AutoModelForSequenceClassification.from_config(config).eval()
    model = copy.deepcopy(plain)
    Prompt(P).inject(model, 0)
    prompt = soft_of(model).prompt
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
    words = plain.get_input_embeddings()(ids)
    embeds = torch.cat([prompt.expand(2, -1, -1), words], 1)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    expected = plain(inputs_embeds=embeds, attention_mask=mask).logits
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask[:, P:]).logits, expected)
    padded = torch.nn.functional.pad(ids[:1], (0, 3), value=config.pad_token_id)
    longer = torch.nn.functional.pad(mask[:1, P:], (0, 3))
    alone = model(input_ids=padded, attention_mask=longer).logits
    torch.testing.assert_close(alone, expected[:1], rtol=1e-4, atol=1e-5)


def test_nothing_is_kept_of_a_model_that_a_prompt_changes_from_its_input_on(make):
    built, _, _ = make("bert", method=Prompt(P), train="head")
    assert find_cut(built.model) == (None, "what learns begins before the first layer")


def test_a_text_gives_the_vectors_that_peft_would_start_from(make, folders):
    built, _, _ = make("bert", method=Prompt(tokens=11, text="the film was good"))
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=11, prompt_tuning_init="TEXT",
        prompt_tuning_init_text="the film was good", tokenizer_name_or_path=str(folders["bert"]),
    )  # fmt: skip
    base = AutoModelForSequenceClassification.from_pretrained(folders["bert"])
    theirs = peft.get_peft_model(base, config)
    expected = theirs.prompt_encoder["default"].embedding.weight
    assert torch.equal(soft_of(built.model).prompt, expected)


def test_a_random_prompt_is_as_large_as_words(make):
    built, _, _ = make("bert", method=Prompt(tokens=50))
    soft = soft_of(built.model)
    assert soft.prompt.std().item() == pytest.approx(soft.weight.std().item(), rel=0.1)


@pytest.mark.parametrize("padded", [False, True])
def test_a_head_of_ours_reads_the_text_alone(make, padded, encode):
    """cls is the text's first token, not the prompt's; the mean leaves the prompt out."""
    for pool in ("cls", "mean", "last"):
        built, _, tokenizer = make("bert", method=Prompt(P), head_kind="linear", head_pool=pool)
        batch = encode(tokenizer)
        seen = []
        built.model.head.register_forward_pre_hook(lambda head, args, seen=seen: seen.append(args))
        whole = []
        built.model.backbone.encoder.register_forward_hook(
            lambda module, args, out, whole=whole: whole.append(out.last_hidden_state)
        )
        built.model(**batch)
        hidden, mask = seen[0]
        assert torch.equal(mask, batch["attention_mask"])
        assert torch.equal(hidden, whole[0][:, P:])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_decoders_answer_is_the_same_on_either_side_of_padding(
    name, make, encode, stir, logits_of
):
    """Its positions are those of columns (GPT-2) or relative (Llama): left padding is right for
    the latter, and for both every text is answered as if it stood alone after right padding."""
    built, _, tokenizer = make(name, method=Prompt(P))
    stir(built.model)
    right = encode(tokenizer)
    alone = [
        logits_of(built.model, {n: t[i : i + 1, :k] for n, t in right.items()})
        for i, k in enumerate(right["attention_mask"].sum(1).tolist())
    ]
    torch.testing.assert_close(logits_of(built.model, right), torch.cat(alone))
    if name == "llama":
        left = logits_of(built.model, encode(tokenizer, "left"))
        torch.testing.assert_close(left, torch.cat(alone))


@pytest.mark.parametrize("kind", ["native", "linear"])
@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("unpad", [False, True])
def test_fast_paths_compute_the_same(name, kind, unpad, make, stir, encode, speed_up_alike):
    pool = {} if kind == "native" else {"head_pool": "cls"}
    built, _, tokenizer = make(name, method=Prompt(P), dropout=0.0, head_kind=kind, **pool)
    stir(built.model)
    speed = speed_up_alike(built.model, dict(encode(tokenizer)), laid_out=True, unpad=unpad)
    assert speed.streams == unpad
    assert speed.in_front == P


def test_the_prompt_takes_its_positions_from_the_text(make):
    _, _, tokenizer = make("bert", method=Prompt(tokens=20))  # of 64
    assert tokenizer.model_max_length == 44
    with pytest.raises(ValueError, match=r"prompt.tokens takes 62 of the model's 64 positions"):
        make("bert", method=Prompt(tokens=62))


def test_a_saved_prompt_is_read_back_to_the_bit(make, stir, encode, logits_of, tmp_path):
    built, args, tokenizer = make("bert", method=Prompt(P, "good"), train="last:1")
    stir(built.model)
    expected = logits_of(built.model, encode(tokenizer))
    export_model(built, args, tokenizer, tmp_path)
    model, again, args_again = load_exported(tmp_path)
    assert args_again == args
    assert again.model_max_length == 64 - P
    assert torch.equal(logits_of(model, encode(again)), expected)


def test_a_prompt_cannot_be_merged(make):
    with pytest.raises(ValueError, match="a prompt cannot be merged"):
        merge(make("bert", method=Prompt(P))[0].model)


def test_models_without_a_table_or_with_a_decoder_are_refused():
    import transformers

    canine = transformers.CanineConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_hash_buckets=32,
    )  # fmt: skip
    t5 = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    for config, said in ((canine, "no table of words"), (t5, "has a decoder")):
        model = AutoModelForSequenceClassification.from_config(config)
        with pytest.raises(ValueError, match=f"prompt: .*{said}"):
            Prompt(P).inject(model, 0)


@pytest.mark.parametrize(
    ("name", "kind"), [("bert", "native"), ("bert", "linear"), ("gpt2", "native")]
)
def test_the_snippet_of_the_card_answers_as_the_model(name, kind, make, stir, logits_of, tmp_path):
    pool = {} if kind == "native" else {"head_pool": "cls"}
    built, args, tokenizer = make(name, method=Prompt(P), head_kind=kind, **pool)
    stir(built.model)
    export_model(built, args, tokenizer, tmp_path)
    alone = reads_last(built.model)
    assert alone == (name == "gpt2")
    names = {}
    exec(loading_snippet(tmp_path, args, Texts(max_length=40, alone=alone)), names)
    assert names["logits"].shape == (1 if alone else 2, 2)
    torch.testing.assert_close(names["logits"], logits_of(built.model, names["inputs"]))


# ---- PEFT ---------------------------------------------------------------------------------------


def texts_for(name, batch):
    """What PEFT answers rightly: of a decoder it reads the last column, be it padding."""
    if name not in ("gpt2", "llama"):
        return [dict(batch)]
    lengths = batch["attention_mask"].sum(1).tolist()
    return [{n: t[i : i + 1, :k] for n, t in batch.items()} for i, k in enumerate(lengths)]


def plain_base(name, folders, tokenizer):
    base = AutoModelForSequenceClassification.from_pretrained(folders[name], num_labels=2)
    base.resize_token_embeddings(len(tokenizer))
    base.config.pad_token_id = tokenizer.pad_token_id
    return base


@pytest.mark.parametrize("name", NAMES)
def test_peft_computes_the_same_from_our_files(name, make, folders, stir, encode, tmp_path):
    peft = pytest.importorskip("peft")
    built, args, tokenizer = make(name, method=Prompt(P))
    stir(built.model)
    export_model(built, args, tokenizer, tmp_path)
    base = plain_base(name, folders, tokenizer)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    for inputs in texts_for(name, encode(tokenizer)):
        if name in ("gpt2", "llama"):
            inputs.pop("token_type_ids", None)
        torch.testing.assert_close(theirs(**inputs).logits, built.model(**inputs).logits)


@pytest.mark.parametrize("name", NAMES)
def test_pefts_gradients_and_files_are_ours(name, make, folders, stir, encode, tmp_path):
    peft = pytest.importorskip("peft")
    built, _, tokenizer = make(name, method=Prompt(P))
    config = peft.PromptTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=P,
        token_dim=16,
        num_layers=2,
        num_attention_heads=2,
        modules_to_save=["pre_classifier", "pooler"],
    )
    theirs = peft.get_peft_model(plain_base(name, folders, tokenizer), config).eval()
    stir(theirs)
    theirs.save_pretrained(tmp_path)
    filled = built_method(built).read(built.model, tmp_path)
    assert {n for n, p in built.model.named_parameters() if p.requires_grad} <= filled
    for inputs in texts_for(name, encode(tokenizer)):
        if name in ("gpt2", "llama"):
            inputs.pop("token_type_ids", None)
        ours, expected = built.model(**inputs).logits, theirs(**inputs).logits
        torch.testing.assert_close(ours, expected)
        for logits in (ours, expected):
            logits.square().sum().backward()
    gradient = theirs.prompt_encoder["default"].embedding.weight.grad
    assert gradient.any()
    torch.testing.assert_close(soft_of(built.model).prompt.grad, gradient, atol=1e-6, rtol=1e-4)


def built_method(built):
    return Prompt(soft_of(built.model).in_front)


def test_the_backbone_below_a_head_of_ours_opens_in_peft(make, folders, stir, encode, tmp_path):
    peft = pytest.importorskip("peft")
    built, args, tokenizer = make("bert", method=Prompt(P), head_kind="linear")
    stir(built.model)
    export_model(built, args, tokenizer, tmp_path)
    theirs = peft.PeftModel.from_pretrained(
        AutoModel.from_pretrained(folders["bert"]), tmp_path
    ).eval()
    batch = encode(tokenizer)
    hidden = transformers_model(built.model)(**batch).last_hidden_state
    expected = theirs(**batch).last_hidden_state[:, P:]
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(hidden[real], expected[real])


def test_an_adapter_of_another_kind_or_size_is_refused(make, tmp_path):
    built, args, tokenizer = make("bert", method=Prompt(P))
    export_model(built, args, tokenizer, tmp_path)
    other, _, _ = make("bert", method=Prompt(P + 1))
    with pytest.raises(ValueError, match=r"of shape \[3, 16\]; this model's is \[4, 16\]"):
        Prompt(P + 1).read(other.model, tmp_path)
    path = tmp_path / "adapter_config.json"
    text = path.read_text(encoding="utf-8").replace("PROMPT_TUNING", "P_TUNING")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"is of 'P_TUNING'; expected PROMPT_TUNING"):
        Prompt(P).read(built.model, tmp_path)
