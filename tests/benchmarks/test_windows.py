"""Windows alternate, and an interrupted comparison goes on where it stopped."""

import json

import pytest
from arithmetic import Shape
from child import Window
from windows import Store, alternate, keep_peak, window_key

MACHINE = {"processor": "one", "versions": {"torch": "1"}}


class Worker:
    """Answers at once, and dies in window number `dies`."""

    def __init__(self, name, log, dies=None):
        self.name, self.log, self.dies = name, log, dies
        self.asked = 0

    def wait_ready(self):
        return {}

    def ask(self, seconds):
        self.asked += 1
        if self.asked - 1 == self.dies:  # the first is for warming up
            raise KeyboardInterrupt
        self.log.append((self.name, seconds))
        return {"tokens": 10, "seconds": seconds}

    def close(self):
        self.log.append((self.name, "closed"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.json"


def run(path, log, dies=None, fresh=False, machine=MACHINE, names=("a", "b"), seconds=60.0):
    store = Store(path, machine, fresh)

    def start(name):
        return Worker(name, log, dies if name == "b" else None)

    return alternate(store, "task", names, 2, seconds, start)


def test_contestants_take_turns_after_warming_up(path):
    log = []
    run(path, log)
    warm, turns = log[:2], log[2:6]
    assert warm == [("a", 5.0), ("b", 5.0)]
    assert turns == [("a", 60.0), ("b", 60.0)] * 2


def test_finished_windows_are_not_done_again(path):
    with pytest.raises(KeyboardInterrupt):
        run(path, [], dies=2)  # b's second window
    log = []
    windows = run(path, log)
    assert log == [("b", 5.0), ("b", 60.0), ("b", "closed")]
    assert [len(windows[name]) for name in "ab"] == [2, 2]
    log.clear()
    run(path, log)
    assert log == []


def test_an_interrupted_contestant_is_closed(path):
    log = []
    with pytest.raises(KeyboardInterrupt):
        run(path, log, dies=1)
    assert log[-2:] == [("a", "closed"), ("b", "closed")]


@pytest.mark.parametrize(
    "change",
    [{"fresh": True}, {"machine": {**MACHINE, "processor": "two"}}, {"seconds": 30.0}],
)
def test_another_machine_or_length_or_fresh_measures_again(path, change):
    run(path, [])
    log = []
    run(path, log, **change)
    assert len([line for line in log if line[1] != "closed"]) == 2 + 4


def test_a_store_says_what_differs(path):
    run(path, [])
    said = Store(path, {**MACHINE, "versions": {"torch": "2"}}).note
    assert "another versions: starting over" in said


def test_a_file_of_another_form_is_started_over(path):
    path.write_text("[]", encoding="utf-8")
    assert Store(path, MACHINE).get(window_key("task", "a", 0, 60.0)) is None


def test_a_measurement_is_on_disk_as_soon_as_it_is_made(path):
    Store(path, MACHINE).put("key", {"tokens": 1})
    assert json.loads(path.read_text(encoding="utf-8"))["measurements"] == {"key": {"tokens": 1}}


def test_a_peak_only_rises(path):
    store = Store(path, MACHINE)
    keep_peak(store, {"fp32": 5.0, "bf16": 7.0})
    keep_peak(store, {"fp32": 6.0, "bf16": 1.0})
    assert store.get("peak") == {"fp32": 6.0, "bf16": 7.0}


def test_a_window_that_shares_memory_leaves_out_its_first_step():
    answers = []
    window = Window(Shape(8, 8, 1, 2, 0, "all"), lambda: 0.0, answers.append, shares=True)
    window.wait()
    for numbers in ([100], [3, 4], [100], [5]):
        window.count(numbers)
    assert [(answer["tokens"], answer["steps"]) for answer in answers] == [(7, 1), (5, 1)]
