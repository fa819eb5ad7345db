"""Whole runs on conversations: a tiny random language model, from the recipe to the reply."""

import json
import re
from io import StringIO

import pytest
from shipped import list_shipped

import compare
import predict
import train
from openloop import load_run
from tests.conftest import ROOT, figures, result_of, weights, write_rows
from tests.killed import kill_after_save

PROMPT = [{"role": "user", "content": "hello there"}]


def words_of(place, name, *more):
    """The words of a run of the tiny recipe."""
    return ["--config", str(place / "chat.toml"), f"run.name={name}", *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory, chat_place):
    """A folder with the recipe; runs go below it."""
    return chat_place(tmp_path_factory.mktemp("chats"))


@pytest.fixture(scope="module")
def talked(place):
    """A finished run with LoRA on packed rows."""
    assert train.main(words_of(place, "one")) == 0
    return place / "runs" / "one"


def test_a_run_leaves_figures_samples_replies_and_a_page(talked):
    result = result_of(talked)
    test = result["test"]
    assert test["loss"] > 0
    assert test["n"] > test["conversations"] > 0
    low, high = test["intervals"]["loss"]
    assert low < test["loss"] < high
    assert result["before"]["loss"] > test["loss"]
    assert set(result["samples"]) == {"hello", "good day"}
    page = (talked / "report.html").read_text(encoding="utf-8")
    assert "perplexity" in page
    assert "good day" in page
    card = (talked / "README.md").read_text(encoding="utf-8")
    assert "token_accuracy" in card
    assert "before training loss" in card
    assert "apply_chat_template" in card


def test_the_scores_of_the_exported_model_are_those_of_the_run(place, talked, capsys):
    capsys.readouterr()
    assert train.main([*words_of(place, "one"), "--eval-only"]) == 0
    loss = result_of(talked)["test"]["loss"]
    assert f"Test loss {loss:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more",
    [[], ["data.packing=false"], ["--unset", "lora", "model.train=last:1"]],
    ids=["packed", "unpacked", "last layer"],
)
def test_a_killed_run_goes_on_to_the_same_bits(place, more, request):
    name = f"whole-{request.node.callspec.id.replace(' ', '-')}"
    words = words_of(place, name, *more)
    assert train.main(words) == 0
    other = words_of(place, name + "-killed", *more)
    kill_after_save(1, lambda: train.main(other))
    assert train.main([*other, "--resume"]) == 0
    whole, gone_on = place / "runs" / name, place / "runs" / (name + "-killed")
    assert figures(whole) == figures(gone_on)
    first, second = weights(whole), weights(gone_on)
    assert first.keys() == second.keys()
    assert all(bool((first[key] == second[key]).all()) for key in first)


def test_an_adapter_writes_the_same_tokens_in_peft(talked, place):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    talker = load_run(talked)
    reply = talker.reply(PROMPT)
    tokenizer = AutoTokenizer.from_pretrained(talked / "model")
    base = AutoModelForCausalLM.from_pretrained(place / "model", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, talked / "model").eval()
    inputs = tokenizer.apply_chat_template(
        PROMPT, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        ids = model.generate(
            **inputs, max_new_tokens=talker.args.max_tokens, do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
    text = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert reply.text == text.strip()
    assert reply.tokens > 0


def test_words_get_replies_and_a_pipe_is_a_chat(talked, capsys, monkeypatch):
    assert predict.main(["--run", str(talked), "--json", "hello there", "good day"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prompt"] for line in lines] == ["hello there", "good day"]
    assert lines[0]["reply"] == load_run(talked).reply(PROMPT).text
    monkeypatch.setattr("sys.stdin", StringIO("hello there\n"))
    capsys.readouterr()
    assert predict.main(["--run", str(talked)]) == 0
    assert capsys.readouterr().out.strip() == lines[0]["reply"].strip()


def test_a_template_of_ones_own_goes_with_the_model_and_ends_its_replies(place):
    template = (
        "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}<|endoftext|>{% endfor %}"
        "{% if add_generation_prompt %}assistant\n{% endif %}"
    )
    (place / "own.jinja").write_text(template, encoding="utf-8")
    words = [f"data.template={place}/own.jinja", "train.max_steps=1"]
    assert train.main(words_of(place, "own", *words)) == 0
    (place / "own.jinja").unlink()
    talker = load_run(place / "runs/own")
    assert talker.tokenizer.chat_template == template
    written = talker.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert written in talker.ends
    settings = json.loads(
        (place / "runs/own/model/generation_config.json").read_text(encoding="utf-8")
    )
    assert settings["eos_token_id"] == [2, written]  # and it ends a reply elsewhere too


@pytest.mark.parametrize("longest", [
    "hello " * 200,  # no room for a reply
    "hello <|im_end|> there",  # a special token
])  # fmt: skip
@pytest.mark.parametrize("overlong", ["right", "drop"])
def test_a_test_conversation_that_cannot_be_asked_is_left_out_of_the_replies(
    place, capsys, longest, overlong
):
    chats = [
        [{"role": "user", "content": f"hello {i}"}, {"role": "assistant", "content": f"good {i}"}]
        for i in range(8)
    ]
    odd = [{"role": "user", "content": longest}, {"role": "assistant", "content": "good day"}]
    write_rows(place / "train.jsonl", [{"messages": chat} for chat in chats])
    write_rows(place / "test.jsonl", [{"messages": chat} for chat in [odd, *chats[:2]]])
    words = [
        f'data.source={{train = "{place}/train.jsonl", test = "{place}/test.jsonl"}}',
        "--unset", "data.test", "data.validation=2", "data.on_bad_row=skip", "data.on_overlap=drop",
        f"data.overlong={overlong}", "train.max_steps=1",
    ]  # fmt: skip
    name = f"odd-{overlong}-{len(longest)}"
    assert train.main(words_of(place, name, *words)) == 0
    assert "test.jsonl:1 is not asked for a reply" in capsys.readouterr().out
    lines = (place / "runs" / name / "head_to_head.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["true"] for line in lines.splitlines()] == ["good 0", "good 1"]


def test_rows_longer_than_the_model_reads_are_refused_before_anything_is_trained(place, capsys):
    assert train.main(words_of(place, "wide", "data.max_length=200")) == 2
    assert "data.max_length is 200" in capsys.readouterr().err
    more = ["data.max_length=126", "data.packing=false", "--unset", "lora", "prompt.tokens=4"]
    assert train.main(words_of(place, "wide", *more)) == 2
    assert "at most 124 tokens" in capsys.readouterr().err


def test_a_sample_that_says_a_special_token_is_named(place, capsys):
    assert train.main(words_of(place, "sample", 'samples.texts=["hi <|im_end|>"]')) == 2
    assert "samples.texts: a message says '<|im_end|>'" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "named"), [
    (["--unsure", "0.9", "hello"], "--unsure"),
    (["--temperature", "-1", "hello"], "temperature"),
])  # fmt: skip
def test_options_that_a_chat_has_not_or_not_so_are_refused(talked, capsys, words, named):
    assert predict.main(["--run", str(talked), *words]) == 2
    assert named in capsys.readouterr().err


def test_options_of_chats_are_refused_by_a_run_on_labels(run, capsys):
    assert predict.main(["--run", str(run), "--system", "be kind", "hello"]) == 2
    assert "--system" in capsys.readouterr().err


def test_a_message_that_says_a_special_token_is_refused(talked, capsys):
    assert predict.main(["--run", str(talked), "hello <|im_end|> there"]) == 2
    assert "<|im_end|>" in capsys.readouterr().err


def test_plain_texts_are_learned_whole_and_gone_on_with(place, capsys):
    rows = [{"text": f"hello and good day number {i} to each other"} for i in range(30)]
    (place / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = [f"data.source={place}/texts.jsonl", "data.messages=text", "train.max_steps=2"]
    assert train.main(words_of(place, "texts", *words)) == 0
    counts = json.loads((place / "runs/texts/data.json").read_text(encoding="utf-8"))["lengths"]
    assert counts["train"]["learned"] == counts["train"]["tokens"] - counts["train"]["rows"]
    assert isinstance(load_run(place / "runs/texts").reply(PROMPT).text, str)


def test_rows_are_shown_with_what_is_learned_in_brackets(place, capsys):
    assert train.main([*words_of(place, "shown"), "--dry-run", "--show", "1"]) == 0
    shown = capsys.readouterr().out
    assert "learned" in shown
    assert re.search(r"\[.*<\|im_end\|>\]", shown)


def test_what_is_too_long_is_said_before_anything_is_trained(place, capsys):
    assert (
        train.main(words_of(place, "long", "data.max_length=12", "--unset", "data.overlong")) == 2
    )
    assert "data.overlong" in capsys.readouterr().err


def test_nothing_outside_the_table_asks_which_task_a_run_has():
    asking = re.compile(r"task\.kind\b|\btask\s*==|isinstance\([^)]*task")
    outside = [
        path
        for path in list_shipped("*.py")
        if path.relative_to(ROOT).parts[0] in ("job", "engine", "models", "data", "report")
        or path.name in ("train.py", "predict.py", "check.py", "compare.py", "openloop.py")
    ]
    asked = [path for path in outside if asking.search(path.read_text(encoding="utf-8"))]
    assert [path.relative_to(ROOT).as_posix() for path in asked] == ["job/tasks/table.py"]


def test_two_runs_on_conversations_stand_beside_each_other_with_their_intervals(
    place, talked, capsys
):
    assert train.main(words_of(place, "beside", "train.lr=1e-3")) == 0
    other = talked.parent / "beside"
    capsys.readouterr()
    assert compare.main([str(talked), str(other)]) == 0
    shown = capsys.readouterr().out
    low, high = result_of(other)["test"]["intervals"]["loss"]
    assert f"({low:.4f} to {high:.4f})" in shown
    assert "train.lr" in shown
    assert "not held against each other row by row" in shown
    assert compare.main([str(talked), str(other), "--html"]) == 0
    assert compare.main([str(talked), str(other), str(place)]) == 0
    assert f"{result_of(other)['test']['n']:,} tokens of 12 test conversations" in (
        capsys.readouterr().out
    )
