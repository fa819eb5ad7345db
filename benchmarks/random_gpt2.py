"""GPT-2 in its exact shape with random weights, and a tokenizer of its kind: no hub is asked.

The tokenizer is byte-level BPE, trained on chitchat's own words; it has fewer entries than the
model's 50,257, whose embeddings and head keep their size.
"""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import child  # noqa: F401  makes the project importable

from files.cache import cache_root, open_built

FORMAT, SEED = "1", 0  # raise FORMAT where what is written changes
END = "<|endoftext|>"
CHATS = "package:chitchat_dataset/dataset.json"


def random_gpt2() -> str:
    """Where the folder lies, or will once `build_gpt2` was called."""
    name = f"random-gpt2-{FORMAT}-{version('transformers')}"
    return str(cache_root() / "models" / name)


def build_gpt2() -> None:
    """Make the folder, unless it is there."""
    open_built(Path(random_gpt2()), lambda made: write_gpt2(made, utterances()))


def utterances() -> Iterator[str]:
    """What was said in chitchat."""
    from data.chat.prepare import ChatArgs, load_chats

    turn = {"role": "sender", "content": "text"}
    args = ChatArgs(CHATS, roles="alternate", turn=turn, on_bad_row="skip", on_overlap="drop")
    chats = load_chats(args)
    for messages in chats.splits["train"]["messages"]:
        yield from (message["content"] for message in messages)


def write_gpt2(folder: Path, texts: Iterator[str]) -> None:
    """The model, and a tokenizer trained on these texts."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    config = GPT2Config()
    raw = ByteLevelBPETokenizer()
    # the end's number is not GPT-2's, which is the last: the model is told
    raw.train_from_iterator(texts, config.vocab_size, show_progress=False, special_tokens=[END])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw._tokenizer, eos_token=END, bos_token=END, unk_token=END,
        pad_token=END, model_max_length=config.n_positions,
    )  # fmt: skip
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    torch.manual_seed(SEED)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
