"""Whatever is damaged in a run's own folder is mended or told, and --resume goes on."""

import json
import os
import shutil
import signal

import pytest

import train
from configs.read import read_config
from engine.tracker import Tracker
from files.write import temporary_name
from job.folder import Folder
from job.predicting.predictor import recorded_dtype

pytestmark = pytest.mark.usefixtures("signals_arrive")
DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "list": lambda content: b"[]",
    "object": lambda content: b"{}",
    "binary": lambda content: b"\xff\xfe" + content,
    "deep": lambda content: b"[" * 100_000,
}
every_damage = pytest.mark.parametrize("damage", DAMAGES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_folder, reviews_csv):
    """A finished run and its recipe."""
    import tomli_w

    folder = tmp_path_factory.mktemp("finished")
    tables = {
        "run": {"name": "tiny", "dir": str(folder / "runs"), "keep": 2, "save_every": 2},
        "model": {"source": str(tiny_folder)},
        "lora": {"rank": 2, "alpha": 4.0, "targets": ["query", "value"]},
        "data": {"source": str(reviews_csv), "max_length": 16, "validation": 12, "test": 12},
        "train": {"epochs": 1, "max_steps": 4, "micro_batch_size": 4, "lr": 1e-2},
        "eval": {"baseline": False},
        "precision": {"dtype": "fp32", "device": "cpu"},
        "speed": {"plain": True},
        "samples": {"texts": ["good film", "bad film"]},
    }
    (folder / "recipe.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
    assert train.main(["--config", str(folder / "recipe.toml")]) == 0
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    """`copy(done)`: the run's folder, finished or stopped before its test, and words to resume."""

    def make(done=False):
        folder = tmp_path / "runs" / "tiny"
        shutil.copytree(finished / "runs" / "tiny", folder)
        if not done:
            shutil.rmtree(folder / "model")
            for name in ("result.json", "README.md", "test_predictions.jsonl"):
                (folder / name).unlink()
        return folder, ["--config", str(finished / "recipe.toml"), f"run.dir={tmp_path / 'runs'}"]

    return make


def same_model(folder, finished):
    name = "model/adapter_model.safetensors"
    whole = finished / "runs" / "tiny"
    return all(
        (folder / part).read_bytes() == (whole / part).read_bytes()
        for part in (name, "test_predictions.jsonl")
    )


def cut_in_a_setting(content):
    """The first half, up to a sign that wants a value: no TOML, wherever the half falls. One that
    ends between two settings is TOML, and is told from an edit by nobody: it is refused."""
    return content[: content.rindex(b"= ", 0, len(content) // 2) + 2]


@pytest.mark.parametrize(
    ("by", "damage"), [("recipe", DAMAGES["empty"]), ("itself", cut_in_a_setting)]
)
def test_a_damaged_config_is_written_anew_from_the_checkpoint(copy, finished, damage, by):
    folder, words = copy()
    config = folder / "config.toml"
    before = read_config(config)
    config.write_bytes(damage(config.read_bytes()))
    if by == "itself":
        words = ["--config", str(config), words[2]]
    assert train.main([*words, "--resume"]) == 0
    after = read_config(config)
    assert after.model_copy(update={"run": before.run}) == before
    assert same_model(folder, finished)


EDITS = {
    "unknown key": ("[train]", "[train]\nepoch = 3"),
    "wrong type": ("epochs = 1", 'epochs = "one"'),
    "unknown section": ("[train]", "[trainer]\nx = 1\n[train]"),
    "relation": ("validation = 12", "validation = 12\nlabels = []"),
}


@pytest.mark.parametrize("by", ["recipe", "itself"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_with_a_mistake_is_told_and_not_written_over(copy, edit, by, capsys):
    folder, words = copy()
    config = folder / "config.toml"
    text = config.read_text(encoding="utf-8").replace(*EDITS[edit], 1)
    config.write_text(text, encoding="utf-8")
    if by == "itself":
        words = ["--config", str(config), words[2]]
    assert train.main([*words, "--resume"]) == 2
    assert str(config) in capsys.readouterr().err
    assert config.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("by", ["recipe", "itself"])
@pytest.mark.parametrize("left", ["[run]\nname = tiny", "", None])
def test_what_stood_in_a_damaged_config_is_kept_beside_it_and_said(copy, left, by, capsys):
    folder, words = copy()
    config = folder / "config.toml"
    config.unlink()
    if left is not None:
        config.write_text(left, encoding="utf-8")
    if by == "itself":
        words = ["--config", str(config), words[2]]
    assert train.main([*words, "--resume"]) == 0
    said = capsys.readouterr().out
    assert "written anew" in said
    aside = folder / "config.toml.damaged-1"
    if left is None:
        assert not aside.exists()
    else:
        assert aside.name in said
        assert aside.read_text(encoding="utf-8") == left
    assert read_config(config).train.max_steps == 4


@pytest.mark.parametrize("damage", ["empty", "half", "gone"])
@pytest.mark.parametrize("flags", [["--eval-only", "--allow-drift"], ["--dry-run", "--resume"]])
def test_what_only_looks_writes_nothing_into_a_damaged_run(copy, flags, damage):
    folder, words = copy(done="--eval-only" in flags)
    for name in ("config.toml", "environment.json"):
        if damage != "gone":
            (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes()))
        elif "--resume" in flags:
            (folder / name).unlink()
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    train.main([*words, *flags])
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


@pytest.mark.parametrize("value", ["{}", '{"fingerprint": null}'])
def test_scoring_says_which_file_lacks_what_it_needs(copy, value, capsys):
    folder, words = copy(done=True)
    (folder / "data.json").write_text(value, encoding="utf-8")
    assert train.main([*words, "--eval-only", "--allow-drift"]) == 2
    told = capsys.readouterr().err
    assert "data.json" in told or "have changed" in told


@pytest.mark.parametrize("name", ["environment.json", "data.json"])
def test_a_file_without_what_it_must_hold_is_written_anew(copy, finished, name, capsys):
    folder, words = copy()
    before = json.loads((folder / name).read_bytes())
    (folder / name).write_text("{}", encoding="utf-8")
    assert train.main([*words, "--resume"]) == 0
    assert name in capsys.readouterr().out
    assert json.loads((folder / name).read_bytes()) == before
    assert same_model(folder, finished)


@pytest.mark.parametrize("dtype", ["int8", ["fp32"], None])
def test_a_recorded_dtype_that_is_none_is_taken_from_the_checkpoint(copy, finished, dtype, capsys):
    folder, words = copy()
    path = folder / "environment.json"
    before = json.loads(path.read_bytes())
    path.write_text(json.dumps(before | {"dtype": dtype}), encoding="utf-8")
    assert recorded_dtype(Folder(folder)) == "fp32"
    assert train.main([*words, "--resume"]) == 0
    assert "written anew" in capsys.readouterr().out
    assert json.loads(path.read_bytes()) == before


def test_a_damaged_config_of_a_finished_run_is_told_with_the_way_out(copy, capsys):
    import predict

    folder, words = copy(done=True)
    (folder / "config.toml").write_text("[run]\nna", encoding="utf-8")
    assert predict.main(["--run", str(folder), "good film"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert train.main([*words, "--resume"]) == 0
    assert predict.main(["--run", str(folder), "good film"]) == 0


def test_a_damaged_config_without_any_checkpoint_is_told(copy, capsys):
    folder, words = copy(done=True)
    shutil.rmtree(folder / "checkpoints")
    (folder / "config.toml").write_text("", encoding="utf-8")
    assert train.main([*words, "--resume"]) == 2
    assert "no checkpoint that is whole" in capsys.readouterr().err


def test_a_config_that_did_not_change_is_left_alone(copy):
    folder, words = copy()
    assert train.main([*words, "--resume"]) == 0  # run.dir is another: written
    before = (folder / "config.toml").stat()
    (folder / "result.json").unlink()
    assert train.main([*words, "--resume"]) == 0
    after = (folder / "config.toml").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_start_that_was_killed_while_writing_its_config_starts_again(finished, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    temporary_name(folder / "config.toml").write_text("# half", encoding="utf-8")
    words = ["--config", str(finished / "recipe.toml"), f"run.dir={tmp_path / 'runs'}"]
    assert train.main(words) == 0
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.slow
@every_damage
@pytest.mark.parametrize("name", ["environment.json", "data.json", "samples.json", "metrics.jsonl"])
def test_any_damage_to_a_file_that_can_be_written_anew_is_mended(copy, finished, name, damage):
    folder, words = copy()
    path = folder / name
    before = path.read_bytes()
    path.write_bytes(DAMAGES[damage](before))
    assert train.main([*words, "--resume"]) == 0
    assert same_model(folder, finished)
    if name in ("environment.json", "data.json") and damage != "object":
        assert json.loads(path.read_bytes()) == json.loads(before)


@pytest.mark.parametrize("name", ["environment.json", "samples.json", "metrics.jsonl"])
def test_a_damaged_file_is_mended_and_said(copy, finished, name, capsys):
    folder, words = copy()
    (folder / name).write_bytes(b"\x00" * 40)
    assert train.main([*words, "--resume"]) == 0
    assert same_model(folder, finished)
    said = "not asked" if name == "samples.json" else name
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["half", "object"])
def test_a_damaged_result_is_worked_out_again(copy, finished, damage):
    folder, words = copy(done=True)
    path = folder / "result.json"
    before = json.loads(path.read_bytes())
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert train.main([*words, "--resume"]) == 0
    assert json.loads(path.read_bytes())["test"] == before["test"]
    assert same_model(folder, finished)


@pytest.mark.parametrize(
    ("name", "plant"),
    [("model", "link"), ("model", "file"), ("model", "dangling"), ("checkpoints", "link"),
     ("checkpoints", "dangling")],
)  # fmt: skip
def test_what_stands_in_the_place_of_a_folder_is_told_before_the_training(
    copy, tmp_path, plant, name, capsys
):
    folder, words = copy()
    shutil.rmtree(folder / name, ignore_errors=True)
    if plant == "file":
        (folder / name).write_text("", encoding="utf-8")
    else:
        (folder / name).symlink_to(tmp_path if plant == "link" else tmp_path / "nothing")
    assert train.main([*words, "--resume"]) == 2
    told = capsys.readouterr()
    assert str(folder / name) in told.err
    assert "loading" not in told.out
    assert len(told.err.splitlines()) == 1


def test_a_run_folder_that_is_deleted_while_it_trains_leaves_no_stub(
    finished, tmp_path, monkeypatch, capsys
):
    folder, plain = tmp_path / "runs" / "tiny", Tracker.log_step

    def delete(self, result, progress, rate):
        plain(self, result, progress, rate)
        shutil.rmtree(folder, ignore_errors=True)

    monkeypatch.setattr(Tracker, "log_step", delete)
    words = ["--config", str(finished / "recipe.toml"), f"run.dir={tmp_path / 'runs'}"]
    assert train.main(words) == 2
    error = capsys.readouterr().err
    assert "is gone" in error
    assert "Traceback" not in error
    assert not folder.exists()


CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("test_and_judge", signal.SIGTERM),
        ("save_model", signal.SIGHUP),
        ("make_card", signal.SIGINT),
    ],
)
def test_a_signal_after_the_training_ends_with_its_status_and_resume_goes_on(
    copy, finished, monkeypatch, place, number
):
    import job.testing.conclude

    folder, words = copy()
    plain = getattr(job.testing.conclude, place)

    def signalled(*arguments, **named):
        os.kill(os.getpid(), number)
        return plain(*arguments, **named)

    monkeypatch.setattr(job.testing.conclude, place, signalled)
    with pytest.raises(SystemExit) as ended:
        train.main([*words, "--resume"])
    assert ended.value.code == CODES[number]
    assert not list(folder.rglob(".*.tmp"))
    monkeypatch.undo()
    assert train.main([*words, "--resume"]) == 0
    assert same_model(folder, finished)
