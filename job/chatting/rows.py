"""Which conversations a run has and how they become rows, as the data package takes it."""

from dataclasses import fields

from configs.schema import Config
from data.chat.encode import ChatEncoding
from data.chat.prepare import ChatArgs, ChatClean, Chats, load_chats


def load_chat_rows(config: Config) -> Chats:
    """The conversations of a recipe: all of them, or where those of the training stream the others
    and a sample."""
    if not config.data.stream:
        return load_chats(chat_args(config))
    from data.stream.chats import load_streamed_chats
    from data.stream.cut import StreamArgs

    args = StreamArgs(config.data.shuffle_buffer, config.run.seed)
    return load_streamed_chats(chat_args(config), args)


def chat_args(config: Config) -> ChatArgs:
    """The part of [data] that says which conversations there are."""
    values = config.data.model_dump(include={f.name for f in fields(ChatArgs)} - {"clean"})
    messages, header = values["messages"], values["header"]
    values["messages"] = (messages,) if isinstance(messages, str) else tuple(messages)
    values["header"] = header if isinstance(header, str) else tuple(header)
    clean = config.data.clean.model_dump(include={f.name for f in fields(ChatClean)})
    return ChatArgs(clean=ChatClean(**clean), **values)


def chat_encoding(config: Config) -> ChatEncoding:
    """The part of [data] that says how conversations become rows of tokens."""
    values = config.data.model_dump(include={f.name for f in fields(ChatEncoding)})
    return ChatEncoding(**values)
