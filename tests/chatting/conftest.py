"""One tiny language model for all tests of talking."""

from functools import partial

import pytest
from chats import make_chat_model, make_chat_tokenizer, make_talker


@pytest.fixture(scope="session")
def chat_tokenizer():
    return make_chat_tokenizer()


@pytest.fixture(scope="session")
def chat_model(chat_tokenizer):
    return make_chat_model(chat_tokenizer)


@pytest.fixture
def talk(chat_model, chat_tokenizer):
    """talk(max_tokens=…, …) -> a Talker with these settings."""
    return partial(make_talker, chat_model, chat_tokenizer)
