"""Exports: the same answers in other tools, what cannot be written, where it goes, what fails."""

import errno
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import export
from job.exporting import export as exporting
from job.exporting.format import CHECKERS, Parity, exact
from job.exporting.place import EXPORT, is_export, place_of, rejected, settle, workplace
from job.extras import HOME
from job.folder import Folder
from job.verify import check_run

SETTINGS = {"head": None}  # transformers' own


@pytest.fixture
def copied(run, tmp_path):
    """A run with a linear head over the mean, as a folder of the test's own."""
    shutil.copytree(run, tmp_path / "runs" / "one")
    return tmp_path / "runs" / "one"


@pytest.fixture
def in_process(monkeypatch):
    """Checkers are called here instead of in a process of their own, which takes seconds to load
    what is loaded already; test_kinds.py starts them as they are."""

    def call(program, folder, questions):
        spec = importlib.util.spec_from_file_location(f"checker_{program.stem}", program)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        place = Path(folder).parent
        (place / "questions.json").write_text(json.dumps(questions), encoding="utf-8")
        module.main(str(folder), str(place / "questions.json"), str(place / "answers.json"))
        return json.loads((place / "answers.json").read_text(encoding="utf-8"))

    monkeypatch.setattr(exporting, "run_checker", call)


def export_to(run, *words, code=0):
    assert export.main(["--run", str(run), *map(str, words)]) == code


def record(run, to):
    return json.loads((run / "exports" / to / EXPORT).read_text(encoding="utf-8"))


def front(path):
    text = (path / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(text.split("---\n")[1])


def holds(record, rows):
    """Whether the second side answers all rows alike, to 1e-4."""
    _, tool = record["sides"]
    assert tool["alike"] == [rows, rows]
    assert max(tool["shares"], tool["outputs"]) < 1e-4
    assert record["failed"] == []


def test_the_default_recipes_head_opens_in_sentence_transformers(copied, in_process, capsys):
    export_to(copied)  # the first format that fits
    holds(record(copied, "sentence-transformers"), 9)  # 8 test rows, and one long text
    shown = capsys.readouterr()
    assert "holds: the same labels" in shown.out
    assert "9 of 9" in shown.out
    assert shown.err.startswith(f"opening {copied} …\n")
    assert check_run(Folder(copied), False) == []  # the seal is as it was
    values = front(copied / "exports" / "sentence-transformers")
    assert values["library_name"] == "sentence-transformers"
    assert "base_model" not in values  # a folder of this machine is no name of the hub's
    assert "license" not in values
    figures = ModelCard.load(copied / "exports" / "sentence-transformers" / "README.md").data
    assert {(one.metric_type, one.dataset_type) for one in figures.eval_results} >= {
        ("accuracy", "private")
    }
    assert str(copied.parent) not in (
        copied / "exports" / "sentence-transformers" / "README.md"
    ).read_text(encoding="utf-8")


def test_an_adapter_opens_in_peft_and_names_the_hubs_base(copied, in_process):
    (copied / "model" / "notes.docx").write_text("mine", encoding="utf-8")
    export_to(copied, "--to", "peft", "--base-model", "owner/base")
    holds(record(copied, "peft"), 9)
    folder = copied / "exports" / "peft"
    adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] == "owner/base"
    assert front(folder)["base_model"] == "owner/base"
    assert front(folder)["base_model_relation"] == "adapter"
    assert not (folder / "openloop.json").exists()
    assert not (folder / "notes.docx").exists()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "base = 'owner/base'" in card
    assert "    print(labels[i], round(row[i].item(), 4))\n```" in card
    export_to(copied, "--to", "peft")
    assert "base = 'path/to/its/base'" in (folder / "README.md").read_text(encoding="utf-8")


def test_an_adapter_whose_base_has_moved_names_where_it_is(
    copied, in_process, tiny_folder, tmp_path
):
    shutil.copytree(tiny_folder, tmp_path / "moved")
    export_to(copied, "--to", "peft", "--base", tmp_path / "moved")
    holds(record(copied, "peft"), 9)
    adapter = json.loads((copied / "exports/peft/adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] == str(tmp_path / "moved")


def test_texts_of_rows_stay_with_the_run(copied, in_process, monkeypatch):
    plain, texts = exporting.run_checker, []

    def spoil(program, folder, questions):
        texts.extend(questions["texts"])
        answers = plain(program, folder, questions)
        return answers | {"outputs": [[-one for one in row] for row in answers["outputs"]]}

    monkeypatch.setattr(exporting, "run_checker", spoil)
    export_to(copied, "--to", "sentence-transformers", code=4)
    kept = (copied / "exports/sentence-transformers.json").read_text(encoding="utf-8")
    assert any(text[:30] in kept for text in texts)
    for path in (copied / "exports/sentence-transformers.rejected").iterdir():
        if path.suffix in (".md", ".json") and not path.name.startswith("tokenizer"):
            content = path.read_text(encoding="utf-8")
            assert not any(text[:30] in content for text in texts), path


def test_a_run_on_a_disk_for_reading_alone_is_exported_elsewhere(
    copied, in_process, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(exporting, "records", lambda source, to: copied / "sealed.json")
    plain = exporting.save_text

    def save(path, text):
        if path.parent == copied:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        plain(path, text)

    monkeypatch.setattr(exporting, "save_text", save)
    export_to(copied, "--to", "sentence-transformers", "--out", tmp_path / "out")
    output = " ".join(capsys.readouterr().out.split())  # its lines depend on the path's length
    assert "keeps no record of it" in output


def test_a_native_head_opens_in_a_pipeline(start, in_process):
    run, _ = start("native", "train.max_steps=2")
    export_to(run, "--rows", 5)
    holds(record(run, "transformers"), 6)
    config = json.loads((run / "exports/transformers/config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "neg", "1": "pos"}
    assert config["problem_type"] == "single_label_classification"
    words = json.loads(
        (run / "exports/transformers/tokenizer_config.json").read_text(encoding="utf-8")
    )
    assert (words["model_max_length"], words["truncation_side"]) == (32, "right")
    assert not {"name_or_path", "is_local", "local_files_only"} & words.keys()


def test_a_format_that_cannot_hold_a_run_says_what_to_use(copied, capsys):
    export_to(copied, "--to", "transformers", code=2)
    shown = capsys.readouterr().err
    assert "cannot be written so" in shown
    assert "use --to sentence-transformers" in shown
    assert not (copied / "exports").exists()


def test_spoilt_weights_are_rejected_with_4(copied, in_process, monkeypatch, capsys):
    plain = exporting.run_checker

    def spoil(program, folder, questions):
        path = Path(folder) / "2_Dense" / "model.safetensors"
        tensors = {name: tensor * 1.01 for name, tensor in load_file(path).items()}
        save_file(tensors, path)
        return plain(program, folder, questions)

    monkeypatch.setattr(exporting, "run_checker", spoil)
    export_to(copied, "--to", "sentence-transformers", code=4)
    assert (copied / "exports" / "sentence-transformers.rejected" / "modules.json").exists()
    assert not (copied / "exports" / "sentence-transformers").exists()
    shown = capsys.readouterr().out
    assert "does not hold" in shown
    assert "logits are off by up to" in shown
    kept = copied / "exports" / "sentence-transformers.rejected"
    assert shown.endswith(f"\nkept, rejected: {kept}\n")


def test_a_program_that_cannot_open_it_is_a_failed_check(copied, monkeypatch, capsys):
    def fail(program, folder, questions):
        raise exporting.CheckerFailed("OSError: no such model")

    monkeypatch.setattr(exporting, "run_checker", fail)
    export_to(copied, "--to", "sentence-transformers", code=4)
    assert "sentence-transformers cannot answer: OSError: no such model" in capsys.readouterr().out


def test_a_folder_of_the_users_is_never_written_over(copied, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years", encoding="utf-8")
    export_to(copied, "--out", mine, code=2)
    assert "is no export of openloop's" in capsys.readouterr().err
    assert (mine / "thesis.txt").read_text(encoding="utf-8") == "years"
    with pytest.raises(ValueError, match="in which the run itself lies"):
        place_of(Folder(copied), "peft", copied / "model" / "out")


def refuse_to_open(*words):
    raise AssertionError("the run is looked at")


@pytest.mark.parametrize("missing", ["package", "place", "run"])
def test_what_needs_no_run_is_checked_before_one_is_opened(
    run, monkeypatch, tmp_path, capsys, missing
):
    monkeypatch.setattr("openloop.verify_run", refuse_to_open)
    words = ["--run", str(run), "--to", "sentence-transformers", "--out", str(tmp_path / "out")]
    expected = f"{tmp_path / 'out'} exists and is no export"
    if missing == "package":
        monkeypatch.setattr("job.extras.find_spec", lambda name: None)
        expected = "needs sentence_transformers, which is not installed"
    elif missing == "place":
        (tmp_path / "out").mkdir()
    else:
        words[1] = str(tmp_path / "nope")
        expected = f"there is no folder {tmp_path / 'nope'}; train one with"
    assert export.main(words) == 2
    shown = capsys.readouterr().err
    assert expected in shown
    assert "opening" not in shown


def test_the_folder_for_sentence_transformers_opens_without_a_report(copied, in_process, caplog):
    """Of BERT's pooling layer, which was never trained and which nothing reads."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    export_to(copied, "--to", "sentence-transformers")
    folder = copied / "exports" / "sentence-transformers"
    before = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.get_logger("transformers").addHandler(caplog.handler)
    try:
        model = SentenceTransformer(str(folder), device="cpu")
    finally:
        logging.set_verbosity(before)
        logging.get_logger("transformers").removeHandler(caplog.handler)
    assert model[0].auto_model.pooler is None
    assert "MISSING" not in caplog.text
    assert "pooler" not in (folder / "README.md").read_text(encoding="utf-8")


def filled(place, text):
    (place / EXPORT).write_text(json.dumps({"made_by": "openloop", "n": text}), encoding="utf-8")


def test_a_new_export_takes_the_place_of_an_old_one_whole(tmp_path):
    target = tmp_path / "out"
    for text in ("old", "new"):
        with workplace(target) as place:
            filled(place, text)
            (place / f"{text}.txt").write_text(text, encoding="utf-8")
            settle(place, target)
    assert sorted(path.name for path in target.iterdir()) == [EXPORT, "manifest.json", "new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert is_export(target)


def test_an_export_that_fails_midway_leaves_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "out"
    with workplace(target) as place:
        filled(place, "old")
        settle(place, target)

    def broken(path, name):
        raise OSError(28, "No space left on device")

    with workplace(target) as place:
        filled(place, "new")
        monkeypatch.setattr("files.publish.sync", lambda path: broken(path, ""))
        with pytest.raises(OSError, match="No space"):
            settle(place, target)
    assert '"old"' in (target / EXPORT).read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_rejected_export_stands_over_an_earlier_one_of_ours_alone(tmp_path):
    target = tmp_path / "out"
    assert rejected(target).name == "out.rejected"
    rejected(target).mkdir()
    assert rejected(target).name == "out.rejected-1"
    filled(tmp_path / "out.rejected", "ours")
    assert rejected(target).name == "out.rejected"


@pytest.mark.parametrize(
    ("parity", "expected"),
    [
        (Parity(10, 10, 1e-6, 1e-5), []),
        (Parity(10, None, 1e-6, 1e-5), []),
        (Parity(10, 10, None, None), []),
        (Parity(10, 9, 1e-6, 1e-5), ["1 of 10 rows"]),
        (Parity(10, 10, 2e-4, 1e-5), ["probabilities"]),
        (Parity(10, 10, float("nan"), 1e-5), ["probabilities"]),
        (Parity(10, 8, 2e-4, 1.0), ["2 of 10 rows", "probabilities", "logits"]),
    ],
)
def test_what_does_not_hold_is_told(parity, expected):
    lines = exact(parity)
    assert len(lines) == len(expected)
    assert all(line.startswith(word) for line, word in zip(lines, expected, strict=True))


def test_each_checker_is_there_and_knows_nothing_of_ours():
    from job.exporting.table import FORMATS

    for chosen in FORMATS.values():
        source = (CHECKERS / chosen.checker).read_text(encoding="utf-8")
        for package in (
            "openloop",
            "configs",
            "data",
            "engine",
            "files",
            "job",
            "models",
            "report",
        ):
            assert f"import {package}" not in source
            assert f"from {package}" not in source


def test_a_push_without_a_licence_is_no_push(copied, capsys):
    with pytest.raises(SystemExit) as end:
        export.main(["--run", str(copied), "--push", "me/model"])
    assert end.value.code == 2
    assert "--license ID" in capsys.readouterr().err


def test_a_dry_run_shows_files_and_front_matter_and_a_second_one_writes_nothing(
    copied, in_process, monkeypatch, capsys
):
    words = ["--push", "me/model", "--license", "MIT", "--language", "en", "--dry-run"]
    export_to(copied, *words)
    shown = capsys.readouterr().out
    assert "model.safetensors" in shown
    assert 'license: "mit"' in shown
    assert "a dry run: nothing was sent" in shown
    export_to(copied, *words, "--rows", 501)  # more than it was checked on
    assert "holds: the same labels" in capsys.readouterr().out
    monkeypatch.setattr(exporting, "run_checker", None)  # which nobody calls any more
    export_to(copied, *words)
    assert "is this model already, checked" in capsys.readouterr().out
    assert torch.get_num_threads() >= 1


def test_a_dry_run_takes_no_word_that_would_open_a_connection(copied, capsys):
    with pytest.raises(SystemExit) as end:
        export.main(["--run", str(copied), "--push", "me/model", "--license", "mit", "--dry-run",
                     "--allow-network"])  # fmt: skip
    assert end.value.code == 2
    assert "--dry-run opens no connection" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_that_has_to_export_first_opens_no_socket(copied):
    """A graph, whose folder holds the most kinds of files; the check runs as it is."""
    words = ["--run", str(copied), "--to", "onnx", "--rows", "4", "--push", "me/model",
             "--license", "mit", "--dry-run"]  # fmt: skip
    sockets, status, shown = watched(words)
    assert (status, sockets) == (0, []), shown
    assert "a dry run: nothing was sent" in shown
    names = json.loads((copied / "exports/onnx/manifest.json").read_text(encoding="utf-8"))["files"]
    assert not any(name.endswith(".pyc") for name in names)
    assert b"stack_trace" not in (copied / "exports/onnx/model.onnx").read_bytes()


@pytest.mark.slow
def test_a_dry_run_asks_no_hub_for_rows(copied):
    config = (copied / "config.toml").read_text(encoding="utf-8")
    config = re.sub(r"(?m)(^\[data\]\nsource = ).*", r'\1"hub:me/rows"', config)
    assert "hub:me/rows" in config
    (copied / "config.toml").write_text(config, encoding="utf-8")
    words = ["--run", str(copied), "--allow-drift", "--push", "me/model", "--license", "mit"]
    sockets, status, shown = watched([*words, "--dry-run"])
    assert (status, sockets) == (2, []), shown
    assert "hub:me/rows" in shown
    assert watched(words)[0]  # without it the hub is asked: the hook sees what there is to see


WATCHED = """
import json, sys
sockets = []
sys.addaudithook(
    lambda event, words: sockets.append(event)
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto") else None
)
import export
status = export.main(sys.argv[1:])
print("WATCHED" + json.dumps([sockets, status]))
"""


def watched(words):
    """(what was opened, exit status, what was printed) of export.py in a process that may reach a
    hub, one that nobody answers for."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_none"}
    done = subprocess.run([sys.executable, "-c", WATCHED, *words], env=environment,
                          encoding="utf-8", capture_output=True, cwd=HOME)  # fmt: skip
    shown, _, outcome = done.stdout.partition("WATCHED")
    assert outcome, done.stderr
    return *json.loads(outcome), shown + done.stderr


def test_a_hub_that_refuses_gives_a_sentence_and_the_command(
    copied, in_process, monkeypatch, capsys
):
    def refuse(*words):
        raise ValueError("asking the hub: this token may not write there")

    monkeypatch.setattr("models.elsewhere.hub.push_folder", refuse)
    export_to(copied, "--push", "me/model", "--license", "mit", code=2)
    shown = capsys.readouterr().err
    assert "this token may not write there" in shown
    assert f"python export.py --run {copied} --push me/model --license mit" in shown
