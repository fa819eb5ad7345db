"""What a run writes down: metrics.jsonl, TensorBoard, the console."""

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from engine.images import (
    CELL,
    EDGE,
    LIGHT,
    MARGIN,
    SIDE,
    confusion_image,
    reliability_image,
)
from engine.loop import StepResult
from engine.plan import Progress
from engine.tracker import Tracker, mend_log, read_log


def log(tracker, steps, loss=0.5):
    for step in steps:
        tracker.log_step(StepResult(loss / step, 1.5, False, 4, 80), Progress(step=step), 1e-3)


def read(folder):
    return [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


@pytest.fixture
def open_tracker(tmp_path):
    """Opens trackers over one folder; they are closed at the end."""
    trackers = []

    def build(start=0, total=4, every=1, resume_at=None):
        trackers.append(Tracker(tmp_path, start, total, every, resume_at))
        return trackers[-1]

    yield build
    for tracker in trackers:
        tracker.close()


def test_a_step_has_these_keys_and_no_others(open_tracker, tmp_path):
    log(open_tracker(), [1, 2])
    lines = read(tmp_path)
    assert [line.pop("step") for line in lines] == [1, 2]
    assert all(line.pop("train/tokens_per_s") > 0 for line in lines)
    assert lines[0] == {"train/loss": 0.5, "train/lr": 1e-3, "train/grad_norm": 1.5}


def test_log_every_keeps_the_last_step(open_tracker, tmp_path):
    log(open_tracker(total=5, every=2), range(1, 6))
    assert [line["step"] for line in read(tmp_path)] == [2, 4, 5]


def test_nan_is_written_as_null(open_tracker, tmp_path):
    open_tracker().write(3, {"eval/loss": math.nan, "eval/accuracy": 0.5})
    assert read(tmp_path) == [{"step": 3, "eval/loss": None, "eval/accuracy": 0.5}]


def test_an_evaluation_has_its_n_and_interval(open_tracker, tmp_path):
    metrics = {"loss": 0.4, "accuracy": 0.75, "interval": (0.7, 0.8), "n": 8, "confusion": [[1]]}
    open_tracker().log_evaluation(2, "eval", metrics)
    assert read(tmp_path) == [
        {
            "step": 2, "eval/loss": 0.4, "eval/accuracy": 0.75, "eval/n": 8,
            "eval/accuracy_low": 0.7, "eval/accuracy_high": 0.8,
        }
    ]  # fmt: skip


def test_a_skipped_step_is_said_and_has_no_line(open_tracker, tmp_path, capsys):
    open_tracker().log_step(
        StepResult(0.5, math.inf, True, 4, 80), Progress(step=1, skipped=3), 1e-3
    )
    assert read(tmp_path) == []
    assert "skipped (3)" in capsys.readouterr().out


def test_resume_cuts_back_what_came_after_the_checkpoint(open_tracker, tmp_path):
    whole = open_tracker()
    log(whole, [1, 2])
    mark = whole.mark()
    log(whole, [3])
    whole.file.write(b'{"step": 4, "train/lo')  # a torn last line
    whole.close()
    assert mend_log(tmp_path, mark, 2) == (mark["bytes"], [])
    resumed = open_tracker(start=2, resume_at=mark["bytes"])
    log(resumed, [3, 4])
    resumed.close()
    lines = read(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[3]["train/loss"] == 0.125


@pytest.mark.parametrize("resume_at", [0, None])
def test_a_new_run_starts_its_own_log(open_tracker, tmp_path, resume_at):
    log(open_tracker(resume_at=resume_at), [1])
    assert len(read(tmp_path)) == 1


def test_a_log_shorter_than_the_checkpoint_says_is_not_stretched(open_tracker, tmp_path):
    log(open_tracker(), [1])
    size = (tmp_path / "metrics.jsonl").stat().st_size
    open_tracker(start=1, resume_at=size + 100)
    assert (tmp_path / "metrics.jsonl").stat().st_size == size


DAMAGES = {
    "flipped digit": lambda b: b.replace(b"0.25", b"0.75"),
    "no JSON": lambda b: b.replace(b"{", b"(", 1),
    "cut": lambda b: b[:-9],
    "empty": lambda b: b"",
    "zeros": lambda b: bytes(len(b)),
    "list": lambda b: b"[1]" + b[b.index(b"\n") :],
    "longer in front": lambda b: b'{"step": 0}\n' + b,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_log_is_kept_and_what_can_be_read_of_it_goes_on(open_tracker, tmp_path, damage):
    tracker = open_tracker()
    log(tracker, [1, 2])
    mark = tracker.mark()
    log(tracker, [3])
    tracker.close()
    path = tmp_path / "metrics.jsonl"
    damaged = DAMAGES[damage](path.read_bytes()[: mark["bytes"]])
    path.write_bytes(damaged)
    size, notes = mend_log(tmp_path, mark, 2)
    assert len(notes) == 1
    assert "metrics.jsonl.damaged-1" in notes[0]
    assert (tmp_path / "metrics.jsonl.damaged-1").read_bytes() == damaged
    assert all(line["step"] <= 2 for line in read_log(path))
    log(open_tracker(start=2, resume_at=size), [3, 4])
    assert [line["step"] for line in read_log(path)][-2:] == [3, 4]


def test_a_missing_log_is_said_and_begun_again(open_tracker, tmp_path):
    size, notes = mend_log(tmp_path, {"bytes": 9, "sha256": ""}, 2)
    assert size == 0
    assert "is missing" in notes[0]


def test_a_line_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": "2"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        list(read_log(path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("part", ["file", "board"])
def test_a_full_disk_is_an_error_of_whoever_logs_and_no_thread_prints(open_tracker, capsys, part):
    tracker = open_tracker()
    full = open("/dev/full", "wb")  # noqa: SIM115  closed by the tracker
    if part == "file":
        tracker.file.close()
        tracker.file = full
    else:
        tracker.board.file.close()
        tracker.board.file, tracker.board.records = full, RecordWriter(full)
    threads = threading.active_count()
    with pytest.raises(OSError, match="No space left"):
        log(tracker, [1])
    with pytest.raises(OSError, match="No space left"):
        tracker.close()
    assert threading.active_count() == threads
    assert "Traceback" not in capsys.readouterr().err


def events(folder):
    accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    accumulator.Reload()
    return accumulator


def test_tensorboard_reads_what_was_written(open_tracker, tmp_path):
    tracker = open_tracker()
    tracker.log_text(0, "samples/before", "It was good.\n| a | b |")
    log(tracker, [1, 2])
    metrics = {"confusion": [[5, 1], [2, 4]], "confused": [0, 2]}
    tracker.log_confusion(2, "eval", metrics, ["neg", "neutral", "pos"])
    settings = {"train.lr": 1e-3, "run.name": "x", "lora.layers": None, "data.labels": ["a", "b"]}
    tracker.log_hyperparameters(settings, {"test/accuracy": 0.75})
    tracker.close()
    read_back = events(tmp_path)
    assert [(e.step, e.value) for e in read_back.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]
    assert [e.value for e in read_back.Scalars("test/accuracy")] == [0.75]
    image = read_back.Images("eval/confusion")[0]
    assert (image.width, image.height) == (MARGIN + 2 * CELL, MARGIN + 2 * CELL)
    assert any("samples/before" in tag for tag in read_back.Tags()["tensors"])
    tags = read_back.summary_metadata
    assert any("hparams" in tag for tag in tags), sorted(tags)


def test_tensorboard_shows_a_resumed_run_once(open_tracker, tmp_path):
    killed = open_tracker()
    log(killed, [1, 2, 3], loss=9.0)
    killed.close()
    resumed = open_tracker(start=1)
    log(resumed, [2, 3], loss=6.0)
    resumed.close()
    values = {e.step: e.value for e in events(tmp_path).Scalars("train/loss")}
    assert values == {1: 9.0, 2: 3.0, 3: 2.0}
    assert len(events(tmp_path).Scalars("train/loss")) == 3


def test_without_a_terminal_progress_is_a_few_plain_lines(open_tracker, capsys):
    log(open_tracker(total=100), range(1, 101))
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("step 5/100: loss 0.1000, lr 1.00e-03, ")
    assert "\r" not in captured.out + captured.err
    assert captured.err == ""


def test_on_a_terminal_progress_is_a_bar_that_lines_do_not_tear(open_tracker, monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    tracker = open_tracker(total=4)
    log(tracker, [1, 2])
    tracker.say("validation at step 2")
    tracker.close()
    captured = capsys.readouterr()
    assert captured.out == "validation at step 2\n"
    assert "2/4" in captured.err
    assert "loss 0.2500" in captured.err


def test_confusion_image_is_darker_where_the_share_is_larger():
    image = confusion_image([[9, 1], [0, 0]], ["negative", "a very long label name"])
    assert image.shape == (MARGIN + 2 * CELL, MARGIN + 2 * CELL, 3)
    assert image.dtype == np.uint8

    def shade(row, column):
        return int(image[MARGIN + CELL * row + 3, MARGIN + CELL * column + 3].sum())

    assert shade(0, 0) < shade(0, 1) < shade(1, 0) == shade(1, 1) == 3 * 255


def test_a_bar_of_the_reliability_diagram_is_as_high_as_the_share_that_is_right():
    nothing = (0.0, 0, 0, 0.0, 1.0)
    image = reliability_image([*[nothing] * 8, (0.85, 40, 10, 0.2, 0.3), (0.95, 40, 30, 0.7, 0.8)])
    assert image.shape == (SIDE + 2 * EDGE, SIDE + 2 * EDGE, 3)
    assert image.dtype == np.uint8

    def bar(number):  # a column of pixels beside the dot and away from the diagonal
        left = EDGE + round((number + 0.12) / 10 * SIDE)
        return int((image[EDGE:-EDGE, left] == LIGHT).all(axis=-1).sum())

    assert bar(3) == 0
    assert bar(8) == pytest.approx(SIDE / 4, abs=20)  # of which its number takes some
    assert bar(9) == pytest.approx(SIDE * 3 / 4, abs=20)


def test_confusion_image_takes_names_of_any_script():
    assert confusion_image([[1]], ["плохой 悪い"]).shape == (MARGIN + CELL, MARGIN + CELL, 3)


def test_confusion_image_of_the_most_classes_is_of_bounded_size():
    image = confusion_image([[1] * 50] * 50, ["name"] * 50)
    assert image.nbytes < 6e6
    assert confusion_image([[1] * 18] * 18, ["name"] * 18).shape[0] == MARGIN + 18 * CELL


@pytest.mark.parametrize("resume_at", [None, 0])
def test_a_log_that_is_a_link_is_neither_cut_nor_written(open_tracker, tmp_path, resume_at):
    (tmp_path / "victim").write_text("kept", encoding="utf-8")
    (tmp_path / "metrics.jsonl").symlink_to("victim")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is a link"):
        open_tracker(resume_at=resume_at)
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "kept"


def test_tensorboards_folder_is_no_link(open_tracker, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tensorboard").symlink_to("elsewhere")
    with pytest.raises(ValueError, match="tensorboard is a link"):
        open_tracker()
    assert list((tmp_path / "elsewhere").iterdir()) == []
