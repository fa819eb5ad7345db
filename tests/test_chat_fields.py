"""Every setting of conversations does something, as tests/test_fields.py asks of all others."""

import json

import pytest

from tests.conftest import make_chats, write_rows
from tests.test_fields import FILES, PLAN, trace

TALK = ["data.messages=talk", "data.roles={a = 'user', b = 'assistant'}"]
DRAWN = ["generate.temperature=1.5", "generate.max_tokens=12"]
CHATS = {
    "task.kind": (["task.kind=classify"], PLAN, []),
    "data.messages": (["data.messages=['prompt', 'completion']"], PLAN, []),
    "data.roles": (["data.roles={a = 'assistant', b = 'user'}"], PLAN, TALK),
    "data.turn": (["data.turn={role = 'who', content = 'what'}"], PLAN, TALK),
    "data.template": (["data.template=plain"], PLAN, []),
    "data.learn": (["data.learn=all"], PLAN, []),
    "data.packing": (["data.packing=false"], PLAN, []),
    "data.overlong": (["data.overlong=drop"], PLAN, ["data.max_length=24"]),
    "data.clean.ends": (["data.clean.ends=false"], PLAN, []),
    "generate.max_tokens": (["generate.max_tokens=3"], FILES, []),
    "generate.temperature": (["generate.temperature=3.0"], FILES, DRAWN),
    "generate.top_k": (["generate.top_k=1"], FILES, DRAWN),
    "generate.top_p": (["generate.top_p=0.05"], FILES, DRAWN),
    "generate.repetition_penalty": (["generate.repetition_penalty=9.0"], FILES, []),
    "generate.replies": (["generate.replies=1"], FILES, []),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, chat_place):
    """The tiny recipe; its conversations stand in other columns too, one of them ends in blanks."""
    folder = chat_place(tmp_path_factory.mktemp("fields"))
    rows = []
    for chat in make_chats(60):
        talk = [
            {"from": "ab"[i % 2], "value": turn["content"], "who": "ba"[i % 2],
             "what": turn["content"]}
            for i, turn in enumerate(chat)
        ]  # fmt: skip
        rows.append({"messages": chat, "talk": talk, "prompt": chat[0]["content"],
                     "completion": chat[1]["content"]})  # fmt: skip
    rows[3]["messages"][1]["content"] += "   "
    write_rows(folder / "chats.jsonl", rows)
    return folder


def show(place, folder, shows, words):
    """What trace() shows; of files also the replies before and after."""
    shown = trace(place / "chat.toml", folder, shows, words)
    if shows == PLAN:
        return shown
    run = folder / "tiny"
    lines = (run / "head_to_head.jsonl").read_text(encoding="utf-8").splitlines()
    return [*shown, *(json.loads(line)["before"] for line in lines)]


@pytest.mark.parametrize("key", CHATS)
def test_changing_a_setting_of_chats_shows(key, place, tmp_path):
    change, shows, before = CHATS[key]
    words = [*([] if shows == PLAN else ["train.max_steps=1"]), *before]
    assert show(place, tmp_path / "a", shows, words) != show(
        place, tmp_path / "b", shows, [*words, *change]
    )
