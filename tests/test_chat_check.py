"""check.py for conversations: why a run would be refused, by the setting that is at fault."""

import pytest

from configs.read import read_config
from job.chatting.examine import examine_chats

UNLIKE = "{% for m in messages %}{{ messages | length }}{{ m['content'] }}{% endfor %}"
SIGNED = (
    "{% for m in messages %}{{ m['role'] }}: {% generation %}{{ m['content'] }}{% endgeneration %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
REFUSED = {
    "too long": (["data.max_length=8"], "length", "data.overlong"),
    "unlike beginnings": ([f'data.template="{UNLIKE}"'], "template", "data.template"),
    "other signs": ([f'data.template="{SIGNED}"'], "template", "data.template"),
    "no file": (["data.template=nowhere.jinja"], "template", "data.template"),
    "no Jinja": (['data.template="{% for %}"'], "template", "data.template"),
    "all refused": (
        ["data.template=\"{{ raise_exception('no') }}\"", 'data.on_bad_row="skip"'],
        "source", "data.source",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, chat_place):
    return chat_place(tmp_path_factory.mktemp("check"))


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_its_kind_and_the_setting_that_mends_it(name, place):
    words, kind, setting = REFUSED[name]
    config = read_config(place / "chat.toml", words, ["data.overlong"])
    refused = [one for one in examine_chats(config) if one.headline == "a run would be refused"]
    assert [one.name for one in refused] == ["train", "validation", "test"]
    for one in refused:
        (finding,) = one.findings
        assert (finding.kind, finding.setting, finding.level) == (kind, setting, "error")
        assert finding.message.startswith(setting)
        assert one.mend == f"{'set' if kind == 'length' else 'correct'} {setting}"
