"""A tiny language model and a tokenizer of bytes with a chat template, made in-process."""

import torch

from engine.precision import Precision
from job.chatting.talker import Talker
from models.generate import GenerateArgs

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
POSITIONS = 96


def ask(text):
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def make_chat_tokenizer():
    """Byte-level BPE: any character is some tokens, emoji several."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    raw = ByteLevelBPETokenizer()
    special = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    words = ["how are you today", "i am fine thank you", "the film was good"]
    raw.train_from_iterator(words * 4, 300, special_tokens=special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw._tokenizer, eos_token="<|end|>", pad_token="<|end|>",
        additional_special_tokens=special[1:],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_chat_model(tokenizer):
    """A random Llama that says many different things."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=POSITIONS, bos_token_id=None,
        eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return model.eval()


def make_talker(model, tokenizer, batch_size=3, ends=(0,), **values):
    """A Talker that writes 12 tokens at most, if nothing else is asked for."""

    def encode(messages):
        if any("<|" in message["content"] for message in messages):
            raise ValueError("a message says '<|', which the tokenizer would read as a token")
        return tokenizer.apply_chat_template(list(messages), add_generation_prompt=True)[
            "input_ids"
        ]

    precision = Precision(torch.device("cpu"), "", "fp32", "")
    args = GenerateArgs(**{"max_tokens": 12, **values})
    return Talker(model, tokenizer, encode, ends, args, precision, batch_size)
