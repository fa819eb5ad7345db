"""Conversations for tests: a byte-level tokenizer with the special tokens of four families, and
their templates."""

import copy

import pytest
from datasets import Dataset

LLAMA_WORDS = (  # how Llama-3 splits words; GPT-2's way leaves the last of several line ends alone
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|bot|>", "<|sh|>", "<|eh|>"]
SPECIAL += ["<|eot|>", "[INST]", "[/INST]", "<bos>", "<sot>", "<eot>"]
WORDS = "user assistant system model hi yo how are you fine and what is it good thanks bye tell me"

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|sh|>' + m['role'] + '<|eh|>\n\n' "
    "+ m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|sh|>assistant<|eh|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<sot>' + role + '\n' + m['content'] | trim + '<eot>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<sot>model\n' }}{% endif %}"
)
SMOLLM = (  # a default system message, as SmolLM2's template has
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\ntell me<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GENERATION = (
    "{%- for m in messages %}\n"
    "    {%- if m['role'] == 'assistant' %}\n"
    "        {{- '<|im_start|>assistant\n' }}\n"
    "        {%- generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}\n"
    "        {{- '\n' }}\n"
    "    {%- else %}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


def talk(*contents, system=None):
    """Messages: the user and the assistant by turns."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)
    ]


def rows_of(*chats):
    """An encodable split of conversations."""
    return Dataset.from_dict(
        {
            "messages": list(chats),
            "row": list(range(100, 100 + len(chats))),
            "address": [f"chats.jsonl:{i}" for i in range(1, len(chats) + 1)],
        }
    )


@pytest.fixture(scope="session")
def raw_tokenizer():
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(name, special=True) for name in SPECIAL],
    )  # fmt: skip
    texts = [f"{word} {word}\n{word}: {word}" for word in WORDS.split()] * 20 + ["\n\n"] * 50
    raw.train_from_iterator(texts, trainer)
    return raw


@pytest.fixture
def tokenizer_for(raw_tokenizer):
    """tokenizer_for(template, bos=…, eos=…, pad=…): a tokenizer with this chat template."""
    from transformers import PreTrainedTokenizerFast

    def make(template=None, bos=None, eos="<|im_end|>", pad="<pad>"):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=copy.deepcopy(raw_tokenizer), bos_token=bos, eos_token=eos,
            pad_token=pad,
        )  # fmt: skip
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.fixture
def chatml(tokenizer_for):
    return tokenizer_for(CHATML)
