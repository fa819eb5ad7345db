"""Conversations in every form they come in, and what is wrong with the others."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.chat.intake import ChatClean
from data.chat.prepare import ChatArgs, load_chats
from data.refused import RefusedError

WHOLE = {"validation": 0, "test": 0}
USER, REPLY = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}


def turns(*contents):
    return [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)
    ]


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def load(tmp_path, source, **changes):
    return load_chats(ChatArgs(source, **(WHOLE | changes)), tmp_path / "cache")


def read(tmp_path, rows, **changes):
    chats = load(tmp_path, write(tmp_path / "chats.jsonl", rows), **changes)
    return [row["messages"] for row in chats.splits["train"]]


SHAREGPT = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}
NESTED = {"messages": [
    [{"text": "hi", "sender": "7f", "timestamp": "x"}, {"text": "you?", "sender": "7f"}],
    [{"text": "yo", "sender": "3a"}, {"text": " ", "sender": "3a"}],
]}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "changes", "expected"),
    [
        ({"messages": [USER, REPLY]}, {}, turns("hi", "yo")),
        ({"messages": json.dumps([USER, REPLY])}, {}, turns("hi", "yo")),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, REPLY]}, {},
         turns("hi", "yo")),
        (SHAREGPT, {"messages": ("conversations",)}, turns("hi", "yo")),
        ({"chat": {"messages": [USER, REPLY]}}, {"messages": ("chat.messages",)},
         turns("hi", "yo")),
        ({"prompt": "hi", "completion": "yo"}, {"messages": ("prompt", "completion")},
         turns("hi", "yo")),
        ({"prompt": [USER], "completion": [REPLY]}, {"messages": ("prompt", "completion")},
         turns("hi", "yo")),
        ({"instruction": "add", "input": "2", "output": "4"},
         {"messages": ("instruction", "input", "output")}, turns("add\n\n2", "4")),
        ({"instruction": "add", "input": "", "output": "4"},
         {"messages": ("instruction", "input", "output")}, turns("add", "4")),
        ({"text": "once  upon\n"}, {"messages": ("text",)},
         [{"role": "text", "content": "once  upon\n"}]),
        (NESTED, {"roles": "alternate", "turn": {"role": "sender", "content": "text"}},
         turns("hi\nyou?", "yo")),
        ({"messages": [{"role": "agent", "content": "hi"}, REPLY]},
         {"roles": {"agent": "user"}}, turns("hi", "yo")),
        ({"messages": [USER, USER, REPLY, REPLY, USER]}, {}, turns("hi\nhi", "yo\nyo", "hi")),
    ],
)  # fmt: skip
def test_every_form_becomes_messages(row, changes, expected, tmp_path):
    assert read(tmp_path, [row], **changes) == [expected]


def test_code_and_markup_stay_and_the_ends_of_turns_do_not(tmp_path):
    code = "def f(x):\n\n    return x  < 2 <br>\t&amp;"
    asked = {"role": "user", "content": f"  {code}\n"}
    assert read(tmp_path, [{"messages": [asked, REPLY]}]) == [turns(code, "yo")]
    kept = read(tmp_path, [{"messages": [asked, REPLY]}], clean=ChatClean(ends=False))
    assert kept == [[asked, REPLY]]
    broken = {"role": "user", "content": "e\u0301\x07!"}
    assert read(tmp_path, [{"messages": [broken, REPLY]}]) == [turns("é !", "yo")]


BAD = [
    ([], "a conversation without a turn"),
    ([USER], "the assistant never answers"),
    ([REPLY], "the assistant speaks first"),
    ([REPLY, USER, REPLY], "the assistant speaks first"),
    ([USER, REPLY, {"role": "system", "content": "s"}], "message 3 is the system's"),
    ([{"role": "agent", "content": "hi"}, REPLY], "turn 1: nothing says what 'agent' is"),
    ([USER, {"role": "assistant", "content": "  "}], "turn 2: 'assistant' says nothing"),
    ([USER, {"role": "assistant", "content": 5}], "turn 2: content is '5', expected text"),
    ([USER, {"role": "assistant", "content": None}], "turn 2: content is 'None'"),
    ([USER, {"role": None, "content": "a"}], "turn 2: role is None"),
    ([USER, {"who": "a", "what": "b"}], "turn 2: no field 'role' among who, what"),
    ([USER, "yo"], "turn 2: expected an object, got 'yo'"),
    ([USER, []], "turn 2: an empty list"),
    ([USER, [REPLY, USER]], "turn 2: several speakers"),
    ([USER, {**REPLY, "tool_calls": [{"a": 1}]}], "turn 2: it calls tools"),
    ("[{'role': 'user'}]", "write it with json.dumps"),
    ({"role": "user", "content": "hi"}, "one object, expected a list of turns"),
    (None, "empty text"),
]


@pytest.mark.parametrize(("value", "message"), BAD)
def test_a_bad_conversation_is_named_or_skipped_and_counted(value, message, tmp_path):
    rows = [{"messages": [USER, REPLY]}, {"messages": value}]
    with pytest.raises(RefusedError, match=r"chats.jsonl:2: messages") as caught:
        read(tmp_path, rows)
    assert message in str(caught.value)
    assert caught.value.rows == ["chats.jsonl:2"]
    chats = load(tmp_path, str(tmp_path / "chats.jsonl"), on_bad_row="skip")
    assert len(chats.splits["train"]) == 1
    assert sum(chats.report.bad.values()) == 1
    assert any(line.startswith("bad rows skipped: 1 (") for line in chats.report.lines())


def test_a_third_speaker_does_not_alternate(tmp_path):
    row = [{"role": name, "content": "hi"} for name in "abc"]
    with pytest.raises(RefusedError, match="third speaker"):
        read(tmp_path, [{"messages": row}], roles="alternate")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": ("a", "b", "c", "d")}, "data.messages"),
        ({"roles": "by turns"}, "data.roles.*alternate"),
        ({"roles": {"a": "bot"}}, "data.roles: a is 'bot'"),
        ({"turn": {"role": "a"}}, "data.turn"),
        ({"on_bad_row": "drop"}, "data.on_bad_row"),
        ({"subset": {"dev": 3}}, "data.subset"),
    ],
)
def test_a_wrong_setting_is_named(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, [{"messages": [USER, REPLY]}], **changes)


ROWS = [{"messages": turns(f"hi {i}", f"yo {i}")} for i in range(40)]


def test_every_kind_of_file_gives_the_same_conversations(tmp_path):
    lines = write(tmp_path / "chats.jsonl", ROWS)
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(ROWS), encoding="utf-8")
    named = tmp_path / "named.json"
    named.write_text(json.dumps({f"key {i}": row for i, row in enumerate(ROWS)}), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "chats.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "hub")
    cells = [{"messages": json.dumps(row["messages"])} for row in ROWS]
    datasets.Dataset.from_list(cells).to_csv(tmp_path / "chats.csv")
    sources = [lines, listed, named, tmp_path / "chats.parquet", tmp_path / "chats.csv"]
    loaded = [load(tmp_path, str(source)) for source in sources]
    loaded.append(load(tmp_path, f"hub:{tmp_path}/hub"))
    assert {chats.fingerprint for chats in loaded} == {loaded[0].fingerprint}
    assert [row["messages"] for row in loaded[0].splits["train"]] == [r["messages"] for r in ROWS]
    assert loaded[2].splits["train"][3]["address"] == "named.json:key 3"


def test_an_object_of_records_may_be_longer_than_what_is_looked_ahead(tmp_path):
    path = tmp_path / "named.json"
    long = {"messages": turns("hi", "y" * (1 << 20))}
    path.write_text(json.dumps({"first": long, "next": ROWS[0]}, indent=1), encoding="utf-8")
    chats = load(tmp_path, str(path)).splits["train"]
    assert chats["address"][:] == ["named.json:first", "named.json:next"]
    path.write_text(path.read_text(encoding="utf-8")[:-4], encoding="utf-8")
    with pytest.raises(ValueError, match=r"named.json:\d+: broken JSON"):
        load(tmp_path, str(path))


def test_cuts_repeats_overlap_and_drop_rows_are_those_of_texts(tmp_path):
    again = [*ROWS, ROWS[3], {"messages": turns("HI 5", " yo  5 ")}]
    source = write(tmp_path / "chats.jsonl", again)
    split = {"validation": 5, "test": 5}
    caught = []
    for seed in range(8):  # row 41 is row 5 but for its case
        try:
            load(tmp_path, source, **split, split_seed=seed)
        except RefusedError as error:
            caught.append(str(error))
    assert any("same text stands on both sides" in message for message in caught)
    for seed in range(3):
        chats = load(tmp_path, source, **split, split_seed=seed, on_overlap="drop")
        assert chats.report.dropped == {"duplicates": 1}
        sizes = {name: len(rows) for name, rows in chats.splits.items()}
        assert sizes["test"] == 5
        assert sum(sizes.values()) in (40, 41)
        rows = [row for rows in chats.splits.values() for row in rows["row"]]
        assert len(set(rows)) == len(rows)
    named = write(tmp_path / "drop.jsonl", [{"rows": ["chats.jsonl:4"]}])
    chats = load(tmp_path, source, drop_rows=named)
    assert chats.report.dropped == {"drop_rows": 1, "drop_rows_again": 1}
    assert not {3, 40} & set(chats.splits["train"]["row"])


def test_groups_stay_whole_and_the_filter_counts(tmp_path):
    rows = [row | {"who": f"p{i % 8}", "stars": i} for i, row in enumerate(ROWS)]
    source = write(tmp_path / "chats.jsonl", rows)
    chats = load(tmp_path, source, test=10, group="who", filter="stars >= 8")
    assert chats.report.filtered == 8
    sides = {
        name: {rows[number]["who"] for number in split["row"]}
        for name, split in chats.splits.items()
    }
    assert sides["train"].isdisjoint(sides["test"])
    sample = load(tmp_path, source, subset={"train": 7})
    assert len(sample.splits["train"]) == 7


def test_the_cache_is_hit_until_something_changes(tmp_path, monkeypatch):
    source = write(tmp_path / "chats.jsonl", ROWS)
    first = load(tmp_path, source)
    monkeypatch.setattr("data.chat.prepare._build", None)  # what would build it again
    assert load(tmp_path, source).fingerprint == first.fingerprint
    assert first.splits["train"].data.table.column(0).num_chunks == 1  # not one a row
    with pytest.raises(TypeError):
        load(tmp_path, source, clean=replace(ChatClean(), ends=False))
    write(tmp_path / "chats.jsonl", ROWS[1:])
    with pytest.raises(TypeError):
        load(tmp_path, source)


MEASURE = """
import re, sys, threading, time
from pathlib import Path
from data.chat.prepare import ChatArgs, load_chats

def own():  # KiB that are nobody else's: pages of mapped files are given back when needed
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"RssAnon:\\s+([0-9]+)", status).group(1))

def watch():
    while True:
        peak[0] = max(peak[0], own())
        time.sleep(0.01)

args = ChatArgs(sys.argv[1], validation=0, test=50)
before, peak = own(), [0]
threading.Thread(target=watch, daemon=True).start()
chats = load_chats(args, Path(sys.argv[2]))
print((peak[0] - before) // 1024)
print(chats.splits["train"][-1]["messages"][0]["content"][:30])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_source(tmp_path):
    grown = {}
    for rows in (5_000, 30_000):
        path = tmp_path / f"{rows}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for i in range(rows):
                file.write(
                    json.dumps({"messages": turns(f"number {i} " + "hi " * 1300, "yo " * 1300)})
                )
                file.write("\n")
        words = [sys.executable, "-c", MEASURE, str(path), str(tmp_path / f"cache{rows}")]
        root = Path(__file__).parents[3]
        done = subprocess.run(
            words, cwd=root, capture_output=True, text=True, encoding="utf-8", check=True
        )
        megabytes, last = done.stdout.splitlines()
        grown[rows] = int(megabytes)
        assert last.startswith("number")
    assert grown[30_000] < grown[5_000] + 40  # MB; the file is 200 MB longer
