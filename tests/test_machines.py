"""Two machines make a run, and the cable between them is cut: tried with network namespaces."""

import re
import threading
import time

import pytest

import train
from tests.machines import two_machines
from tests.test_parallel import SETTINGS, assert_same

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("signals_arrive"),
]


@pytest.fixture
def machines():
    with two_machines() as both:
        yield both


@pytest.fixture
def alone(recipe, tmp_path):
    """A run of one process: its folder."""
    assert train.main(["--config", str(recipe(**SETTINGS)), "run.name=alone"]) == 0
    return tmp_path / "runs" / "alone"


def words_of(path, folders, *words):
    """What each machine is started with; `folders`: run.dir of each."""
    return [
        ["--config", str(path), "run.name=two", f"run.dir={folder}", "run.save_every=2", *words]
        for folder in folders
    ]


def finish(started):
    """Status and words of each, all waited for at once."""
    told: list = [None] * len(started)

    def read(number):
        told[number] = started[number].communicate(timeout=400)[0]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(started))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [(process.returncode, words) for process, words in zip(started, told, strict=True)]


@pytest.mark.parametrize(("backend", "own"), [("static", True), ("c10d", False)])
def test_two_machines_with_one_folder_or_their_own(machines, recipe, alone, tmp_path, backend, own):
    folders = [tmp_path / "first", tmp_path / ("second" if own else "first")]
    words = words_of(recipe(**SETTINGS), folders)
    for (code, told), size in zip(
        finish([machines.torchrun(n, *words[n], size=2 - n, backend=backend) for n in (0, 1)]),
        (2, 1),
        strict=True,
    ):
        assert code == 0, f"{size} processes: {told}"
    assert_same(alone, folders[0] / "two")
    assert own == (not folders[1].exists())  # nothing half-made on the other machine


def test_a_cut_cable_ends_both_machines_with_a_message_and_the_run_goes_on(
    machines, recipe, alone, tmp_path
):
    folders = [tmp_path / "first", tmp_path / "second"]
    settings = SETTINGS | {"train": SETTINGS["train"] | {"epochs": 2}}
    words = words_of(recipe(**settings), folders, "parallel.timeout=0.5")
    started = [machines.torchrun(n, *words[n]) for n in (0, 1)]
    while not list(folders[0].glob("two/checkpoints/step-*")):
        time.sleep(0.02)
        assert started[0].poll() is None
    machines.plug("down")
    cut = time.monotonic()
    (code, told), (other, there) = finish(started)
    assert time.monotonic() - cut < 150
    assert (code, other) == (1, 1)  # torchrun's own
    says = [re.findall(r"^train\.py: .*", words, re.MULTILINE) for words in (told, there)]
    assert [len(one) for one in says] == [1, 1], told + there
    assert re.search(r"rank 1 \(host .*\) gives no sign of life: .* machine is cut; it was", told)
    assert "10.77.0.1:29511 does not answer, where the processes meet" in there
    assert "waited 30 s (parallel.timeout)" in told
    assert not folders[1].exists()
    machines.plug("up")
    again = [machines.torchrun(n, *words[n], "--resume") for n in (0, 1)]
    for code, words in finish(again):
        assert code == 0, words
    assert_same(alone, folders[0] / "two")
