"""Language models as GGUF files: the same model, as transformers reads it back; and Modelfiles."""

import copy
import json
import re

import pytest
import torch
from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from job.exporting.checkers.gguf import by_llama, by_transformers
from models.elsewhere.gguf_file import (
    LETTERS,
    REST,
    check_range,
    pre_tokenizer,
    why_no_gguf,
    write_gguf,
)
from models.elsewhere.modelfile import CHATML, modelfile
from models.methods.lora import LoRA
from models.methods.method import added_modules

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"rms_norm_eps": 1e-5}),
    "tied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 128}),  # transformers reads no other back
}


def make(name, words, **more):
    """A random model whose weights half precision holds exactly."""
    config_class, model_class, own = KINDS[name]
    torch.manual_seed(0)
    model = model_class(config_class(vocab_size=words + 5, **{**SIZES, **own, **more})).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()
    return model


@pytest.mark.parametrize("name", KINDS)
def test_what_is_read_back_is_the_model(name, chat_tokenizer, tmp_path):
    model = make(name, len(chat_tokenizer))
    assert why_no_gguf(model, chat_tokenizer) is None
    write_gguf(model, chat_tokenizer, chat_tokenizer.chat_template, tmp_path, eight=False)
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).eval()
    ids = torch.arange(3, 60)[None] % len(chat_tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    conversation = [{"role": "user", "content": "hello and good day"}]
    assert tokenizer.apply_chat_template(conversation) == chat_tokenizer.apply_chat_template(
        conversation
    )
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_start|>")


def test_eight_bits_stay_near_and_half_as_large(chat_tokenizer, tmp_path):
    model, sizes = make("llama", len(chat_tokenizer)), []
    ids = torch.arange(3, 60)[None]
    for eight in (False, True):
        folder = tmp_path / str(eight)
        folder.mkdir()
        write_gguf(model, chat_tokenizer, None, folder, eight)
        sizes.append((folder / "model.gguf").stat().st_size)
    again = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        off = (again(ids).logits - model(ids).logits).abs().max()
    assert 0 < off < 0.5
    assert sizes[1] < 0.75 * sizes[0]


def test_an_adapter_is_merged_and_the_model_stays_as_it_was(chat_tokenizer, tmp_path):
    model = make("llama", len(chat_tokenizer))
    method = LoRA(rank=2, alpha=4.0, targets="all-linear")
    method.inject(model, 0, exclude=("lm_head",))
    for module in added_modules(model).values():
        torch.nn.init.normal_(module.lora_B, std=0.1)
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        before = model(ids).logits
    assert write_gguf(model, chat_tokenizer, None, tmp_path, eight=False) < 1e-5
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)
        torch.testing.assert_close(again(ids).logits, before, atol=0.03, rtol=0.01)


def test_the_check_gives_replies_and_what_it_thinks_of_them(chat_tokenizer, tmp_path):
    model = make("llama", len(chat_tokenizer))
    write_gguf(model, chat_tokenizer, chat_tokenizer.chat_template, tmp_path, eight=False)
    conversation = [{"role": "user", "content": "hello"}]
    inputs = chat_tokenizer.apply_chat_template(
        conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    prompt = inputs["input_ids"]
    with torch.no_grad():
        reply = model.generate(**inputs, do_sample=False, max_new_tokens=6, pad_token_id=2)
        reply = reply[0, prompt.shape[1] :].tolist()
        both = torch.tensor([prompt[0].tolist() + reply])
        logprobs = model(both).logits[0].double().log_softmax(-1)
    questions = {"messages": [conversation], "replies": [reply], "plain": False, "tokens": 6,
                 "ends": [], "threads": 1}  # fmt: skip
    answers = by_transformers(str(tmp_path), questions)
    assert answers["prompts"] == [prompt[0].tolist()]
    assert answers["replies"] == [reply]
    wanted = [logprobs[prompt.shape[1] - 1 + i, token].item() for i, token in enumerate(reply)]
    assert answers["logprobs"][0] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "{{ bos_token }}{{ eos_token }}"])
def test_llama_cpp_replies_as_transformers_does(chat_tokenizer, tmp_path, first):
    pytest.importorskip("llama_cpp")
    model = make("llama", len(chat_tokenizer))
    chat_tokenizer = copy.deepcopy(chat_tokenizer)
    chat_tokenizer.chat_template = first + chat_tokenizer.chat_template
    write_gguf(model, chat_tokenizer, chat_tokenizer.chat_template, tmp_path, eight=False)
    words = ["hello", "good day", "and you", "say hello", "to each other 12"]
    conversations = [[{"role": "user", "content": word}] for word in words]
    prompts, replies = [], []
    for messages in conversations:
        inputs = chat_tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        prompts.append(inputs["input_ids"][0].tolist())
        with torch.no_grad():
            out = model.generate(**inputs, do_sample=False, max_new_tokens=12, pad_token_id=2)
        reply = out[0, len(prompts[-1]) :].tolist()
        replies.append(reply[: reply.index(2)] if 2 in reply else reply)
    questions = {"messages": conversations, "replies": replies, "plain": False, "tokens": 12,
                 "ends": [2], "threads": 1}  # fmt: skip
    answers = by_llama(str(tmp_path / "model.gguf"), questions)
    assert answers["prompts"] == prompts
    assert answers["replies"] == replies


def split_by(tokenizer, parts):
    """A tokenizer that splits texts otherwise."""
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.pre_tokenizer = (
        parts[0] if len(parts) == 1 else pre_tokenizers.Sequence(parts)
    )
    return other


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ([pre_tokenizers.ByteLevel(add_prefix_space=False)], "gpt-2"),
        ([pre_tokenizers.ByteLevel(add_prefix_space=True)], None),
        ([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)], "smollm"),
        ([pre_tokenizers.Digits(False), pre_tokenizers.ByteLevel(False)], None),
        ([pre_tokenizers.Split(Regex(LETTERS + REST), "isolated"),
          pre_tokenizers.ByteLevel(False, use_regex=False)], "qwen2"),
        ([pre_tokenizers.Split(Regex(LETTERS), "isolated"),
          pre_tokenizers.ByteLevel(False, use_regex=False)], None),
        ([pre_tokenizers.Split(Regex(LETTERS + "{1,3}" + REST), "isolated"),
          pre_tokenizers.ByteLevel(False, use_regex=False)], None),  # it never splits whole words
        ([pre_tokenizers.Whitespace()], None),
    ],
)  # fmt: skip
def test_how_words_are_split_has_a_name_or_none(chat_tokenizer, parts, name):
    assert pre_tokenizer(split_by(chat_tokenizer, parts)) == name


def test_a_tokenizer_that_lowers_letters_has_no_name(chat_tokenizer):
    other = copy.deepcopy(chat_tokenizer)
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert pre_tokenizer(other) is None


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "linear"),
    ],
)
def test_what_is_not_written_is_refused(more, reason, chat_tokenizer):
    assert reason in why_no_gguf(make("llama", len(chat_tokenizer), **more), chat_tokenizer)


def test_another_architecture_is_refused_by_its_name(chat_tokenizer):
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=330))
    assert "'gpt2'" in why_no_gguf(model, chat_tokenizer)


def test_a_weight_that_half_precision_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"model\.x holds 7e\+04"):
        check_range("model.x", torch.full((2, 2), 70_000.0).numpy())


# the Modelfile


def test_a_chatml_model_gets_ollamas_template(chat_tokenizer):
    text, lacks = modelfile(chat_tokenizer, "model.gguf", 64, plain=False)
    assert lacks is None
    assert text.startswith("FROM ./model.gguf\n")
    assert f'TEMPLATE """{CHATML}"""' in text
    assert text.count("PARAMETER stop") == 1
    assert 'PARAMETER stop "<|im_end|>"' in text


def go_template(messages):
    """What Ollama makes of CHATML, by hand: the body of range once a message, then the rest."""
    body, rest = re.fullmatch(
        r"\{\{- range \.Messages \}\}(.*)\{\{ end \}\}(.*)", CHATML, re.S
    ).groups()
    each = [body.replace("{{ .Role }}", m["role"]).replace("{{ .Content }}", m["content"])
            for m in messages]  # fmt: skip
    return "".join(each) + rest


def test_ollamas_template_gives_what_the_models_own_gives(chat_tokenizer):
    conversation = [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "u"),
            ("assistant", "a\nb"), ("user", "v"))]  # fmt: skip
    own = chat_tokenizer.apply_chat_template(
        conversation, tokenize=False, add_generation_prompt=True
    )
    assert go_template(conversation) == own


def test_a_system_message_of_the_templates_own_becomes_ollamas(chat_tokenizer):
    other = copy.deepcopy(chat_tokenizer)
    other.chat_template = (
        "{% if messages[0]['role'] != 'system' %}"
        "<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + other.chat_template
    )
    text, lacks = modelfile(other, "model.gguf", 64, plain=False)
    assert lacks is None
    assert 'SYSTEM """Be kind."""\n' in text


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}",
        "{{ raise_exception('no') }}",
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim | upper }}"
        "<|im_end|>\n{% endfor %}<|im_start|>assistant\n",
    ],
)
def test_another_template_is_left_out_with_the_reason(template, chat_tokenizer):
    other = copy.deepcopy(chat_tokenizer)
    other.chat_template = template
    text, lacks = modelfile(other, "model.gguf", 64, plain=False)
    assert "TEMPLATE" not in text
    assert "no ChatML" in lacks


def test_a_tokenizer_without_an_end_has_no_word_that_ends(chat_tokenizer):
    other = copy.deepcopy(chat_tokenizer)
    other.eos_token = None
    text, _ = modelfile(other, "model.gguf", 64, plain=True)
    assert "PARAMETER stop" not in text


def test_a_model_that_goes_on_with_texts_gets_the_prompt_alone(chat_tokenizer):
    text, lacks = modelfile(chat_tokenizer, "model.gguf", 64, plain=True)
    assert lacks is None
    assert 'TEMPLATE """{{ .Prompt }}"""' in text


def test_the_files_own_numbers_are_the_models(chat_tokenizer, tmp_path):
    from gguf import GGUFReader

    model = make("llama", len(chat_tokenizer))
    write_gguf(model, chat_tokenizer, "t", tmp_path, eight=False)
    fields = GGUFReader(tmp_path / "model.gguf").fields
    values = {name: field.contents() for name, field in fields.items()}
    words = len(chat_tokenizer)
    assert values["general.architecture"] == "llama"
    assert values["tokenizer.ggml.pre"] == "gpt-2"
    assert values["tokenizer.ggml.tokens"][words:] == [f"[PAD{i}]" for i in range(words, words + 5)]
    assert values["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert values["tokenizer.ggml.token_type"][words:] == [5] * 5
    assert values["tokenizer.ggml.add_bos_token"] is False
    assert values["llama.rope.freq_base"] == 10000.0
    raw = json.loads(chat_tokenizer.backend_tokenizer.to_str())
    assert values["tokenizer.ggml.merges"] == [" ".join(pair) for pair in raw["model"]["merges"]]
