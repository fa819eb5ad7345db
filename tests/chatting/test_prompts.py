"""A file of prompts and the file of its replies."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chats import ask

from data.labels.reader import RowError
from job.chatting.prompts import (
    Columns,
    Tally,
    answer_prompts,
    read_prompts,
    reply_lines,
    write_replies,
)

ROWS = [
    {"prompt": "how are you", "id": 1},
    {"messages": [{"role": "system", "content": "be kind"}, *ask("the film")], "id": 2},
    {"text": "neither", "id": 3},
    {"prompt": "   ", "id": 4},
    {"prompt": "both", "messages": ask("both"), "id": 5},
    {"messages": [*ask("hello"), {"role": "assistant", "content": "hi"}], "reply": "mine"},
    {"prompt": "x <|end|> y"},
    {"messages": [{"who": "me"}]},
]


def read_turns(column, turns):
    """Stands for data/chat's reader."""
    for number, turn in enumerate(turns, start=1):
        if not {"role", "content"} <= turn.keys():
            raise RowError("bad_turn", column, f"turn {number}: no field 'role'")
    return turns


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps(row) for row in ROWS]
    path.write_text("\n".join([*lines, "{broken", ""]), encoding="utf-8")
    return path


def answered(talker, path, strict=False):
    tally = Tally()
    rows = read_prompts(path, read_turns)
    return list(answer_prompts(talker, rows(), strict, tally)), tally


def test_each_row_gets_its_reply_or_what_is_wrong_with_it(talk, prompts):
    talker = talk(max_tokens=5)
    done, tally = answered(talker, prompts)
    columns = Columns()
    rows = [json.loads(line) for line in reply_lines(columns, done)]
    assert len(rows) == len(ROWS) + 1
    assert [row["reply"] for row in rows[:2]] == [
        talker.reply(ask("how are you")).text, talker.reply(ROWS[1]["messages"], 1).text,
    ]  # fmt: skip
    assert [row.get("id") for row in rows[:5]] == [1, 2, 3, 4, 5]  # other columns stay
    assert rows[0]["tokens"] <= 5
    assert rows[0]["stopped"] in ("eos", "length")
    for row, wrong in zip(rows[2:], (
        "no prompt and no messages, only text, id", "prompt: empty text", "both a prompt and",
        "the last one is the assistant's own", "says '<|'", "turn 1: no field 'role'", "JSON",
    ), strict=True):  # fmt: skip
        assert row["reply"] is None
        assert wrong in row["error"]
    assert rows[5]["input_reply"] == "mine"
    assert columns.renamed == {"reply": "input_reply"}
    assert tally.line().startswith("9 rows")
    assert "7 with an error and no reply (first: prompts.jsonl:3: has no prompt" in tally.line()


def test_strict_stops_at_the_first_error(talk, prompts):
    with pytest.raises(ValueError, match=r"^prompts\.jsonl:3: has no prompt"):
        answered(talk(), prompts, strict=True)


def test_replies_do_not_depend_on_the_rows_beside_them(talk, prompts, tmp_path, monkeypatch):
    talker = talk(temperature=1.0, max_tokens=6)
    whole, _ = answered(talker, prompts)
    monkeypatch.setattr("job.chatting.prompts.CHUNK", 2)
    parts, _ = answered(talker, prompts)
    texts = [
        [row.reply and row.reply.text for done in run for row in done] for run in (whole, parts)
    ]
    assert texts[0] == texts[1]


def test_replies_are_written_whole_or_not_at_all(talk, prompts, tmp_path):
    out = tmp_path / "out.jsonl"
    rows = read_prompts(prompts, read_turns)
    answers = answer_prompts(talk(), rows(), True, Tally())
    with pytest.raises(ValueError, match="has no prompt"):
        write_replies(out, Columns(), answers, None)
    assert list(tmp_path.iterdir()) == [prompts]
    write_replies(out, Columns(), answer_prompts(talk(), rows(), False, Tally()), None)
    assert len(out.read_text(encoding="utf-8").splitlines()) == len(ROWS) + 1


def test_a_table_is_read_and_written_too(talk, tmp_path):
    source = tmp_path / "prompts.csv"
    source.write_text("prompt,id\nhow are you,7\nthe film,8\n", encoding="utf-8")
    rows, columns = read_prompts(source, read_turns), Columns()
    types = columns.types(rows())
    out = tmp_path / "out.parquet"
    write_replies(out, columns, answer_prompts(talk(), rows(), False, Tally()), types)
    table = pq.read_table(out)
    assert table.column_names == ["prompt", "id", "reply", "tokens", "stopped", "left_out", "error"]
    assert table["reply"].to_pylist()[0] == talk().reply(ask("how are you")).text
    source.write_text("text,id\na,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="neither a column 'prompt' nor 'messages'"):
        read_prompts(source, read_turns)


def test_what_had_no_room_is_counted(talk, tmp_path):
    path = tmp_path / "long.jsonl"
    turns = [*ask("how are you today " * 5), {"role": "assistant", "content": "fine"}]
    path.write_text(
        "\n".join(
            json.dumps({"messages": [*spoken, *ask("and now")]}) for spoken in (turns * 3, [])
        ),
        encoding="utf-8",
    )
    (done,), tally = answered(talk(), path)
    assert [row.left_out > 0 for row in done] == [True, False]
    assert "1 read without their oldest messages" in tally.line()


def test_what_the_model_is_told_first_goes_before_each_row_without_its_own(talk, tmp_path):
    path = tmp_path / "prompts.jsonl"
    own = [{"role": "system", "content": "mine"}, *ask("two")]
    rows = [{"prompt": "one"}, {"messages": own}, {"messages": ask("three")}, {"text": "none"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    read = list(read_prompts(path, read_turns, system="be kind")())
    told = [{"role": "system", "content": "be kind"}]
    assert [row.messages for row in read] == [[*told, *ask("one")], own, [*told, *ask("three")], []]
    (done, *_), _ = answered(talk(), path)
    assert [row.prompt.messages for row in done][:2] == [ask("one"), own]


@pytest.mark.parametrize(
    ("name", "encoding"), [("p.csv", "cp1250"), ("p.jsonl", "cp1252"), ("p.csv", "koi8_r")]
)
def test_a_file_is_read_in_the_encoding_that_is_named(tmp_path, name, encoding):
    text = bytes(range(0xE0, 0xEA)).decode(encoding)
    path = tmp_path / name
    table = f"prompt,n\n{text},1\n"
    lines = json.dumps({"prompt": text}, ensure_ascii=False) if "json" in name else table
    path.write_bytes(lines.encode(encoding))
    (row,) = read_prompts(path, read_turns, encoding)()
    assert row.messages == ask(text)


def test_an_encoding_that_cannot_be_is_refused(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt,n\none,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="--encoding"):
        read_prompts(path, read_turns, "klingon")
    table = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": ["one"]}), table)
    with pytest.raises(ValueError, match="--encoding is that of a text file"):
        read_prompts(table, read_turns, "cp1252")


def test_a_run_of_plain_texts_refuses_rows_of_several_messages(talk, tmp_path):
    path = tmp_path / "p.jsonl"
    spoken = [*ask("a"), {"role": "assistant", "content": "b"}, *ask("c")]
    path.write_text(
        "\n".join(json.dumps({"messages": m}) for m in (ask("one"), spoken)), encoding="utf-8"
    )
    (done,), _ = answered(replace(talk(), texts=True), path)
    assert [row.error is None for row in done] == [True, False]
    assert "goes on with plain texts, and the row has 3 messages" in done[1].error


def test_each_row_is_encoded_once(talk, tmp_path):
    path, calls, talker = tmp_path / "p.jsonl", [], talk(max_tokens=2)

    def encode(messages):
        calls.append(messages[-1]["content"])
        return talker.encode(messages)

    path.write_text(
        "\n".join(json.dumps({"prompt": f"how {i}"}) for i in range(70)), encoding="utf-8"
    )
    done, _ = answered(replace(talker, encode=encode), path)
    assert calls == [f"how {i}" for i in range(70)]
    assert sum(map(len, done)) == 70
