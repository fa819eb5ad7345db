"""What is said of processes that did not come to a meeting, from the signs they gave."""

import os
import signal
import subprocess
import threading
import time
from dataclasses import replace

import pytest

from engine import signs, world
from engine.feed import ahead
from engine.signs import Sign, absent, fate, own_sign, read_signs, show, watch
from engine.stop import StopRequest, stop_on_signals
from engine.store import lost_meeting, time_limit

HERE = Sign(3, "a", signs.machine(), os.getpid(), "step 7", 2.0, "engine/loop.py:9 (fit)", True)
FAR = replace(HERE, host="b", machine="another", pid=4711)


class Store:
    """As torch's, in this process."""

    def __init__(self, **values):
        self.values = {name.replace("_", "/"): value for name, value in values.items()}

    def check(self, keys):
        return all(key in self.values for key in keys)

    def multi_get(self, keys):
        return [self.values[key].encode() for key in keys]


def test_a_sign_says_where_the_main_thread_is_and_what_it_does():
    signs.note("step 7")
    taken: list[Sign] = []
    thread = threading.Thread(target=lambda: taken.append(own_sign(1)))
    thread.start()
    thread.join()
    assert taken[0].doing == "step 7"
    assert taken[0].pid == os.getpid()
    assert not taken[0].waits
    assert "tests/engine/test_signs.py:" in taken[0].place


def test_of_a_process_that_waits_for_a_batch_the_place_is_where_it_is_made():
    taken: list[Sign] = []

    def slow():
        time.sleep(0.6)  # as a file system that hangs
        yield 1

    looker = threading.Timer(0.3, lambda: taken.append(own_sign(1)))
    looker.start()
    assert list(ahead(slow(), 1)) == [1]
    looker.join()
    assert taken[0].place.endswith("(slow)")


def test_signs_are_read_of_those_that_have_given_one():
    store = Store(sign_0=show(HERE), sign_2=show(FAR))
    assert read_signs(store, 3) == {0: HERE, 2: FAR}


@pytest.mark.parametrize(
    ("one", "told"),
    [(HERE, ""), (replace(HERE, pid=2**22 + 1), "has gone: "), (FAR, None)],
)
def test_a_process_of_this_machine_is_known_by_its_number(one, told):
    assert (fate(one) or "").startswith(told or "")
    assert (fate(one) is None) == (told is None)


def test_a_stopped_process_is_told_from_one_that_runs():
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        assert fate(replace(HERE, pid=sleeper.pid)) == ""
        sleeper.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 10
        while not fate(replace(HERE, pid=sleeper.pid)) and time.monotonic() < until:
            time.sleep(0.01)
        assert fate(replace(HERE, pid=sleeper.pid)) == "is stopped, by SIGSTOP or a debugger"
        sleeper.kill()


def test_a_silent_process_is_waited_for_before_it_is_named(monkeypatch):
    monkeypatch.setattr(signs, "WATCH", 0.5)
    beats = iter(range(100))
    begun = time.monotonic()
    seen = watch(lambda: {0: HERE, 1: replace(FAR, beat=next(beats)), 2: FAR}, own=0)
    assert {rank: bool(told) for rank, (_, told) in seen.items()} == {1: False, 2: True}
    assert time.monotonic() - begun >= 0.5


@pytest.mark.parametrize(
    ("seen", "size", "limit", "told"),
    [
        ({}, 2, "", "rank 1 never came"),
        ({1: (FAR, "has gone")}, 2, "", "rank 1 (host b, process 4711) has gone; it was last in "),
        ({1: (replace(FAR, waits=False), ""), 2: (FAR, "")}, 3, "9 s", "at engine/loop.py:9 (fit)"),
        ({1: (FAR, "")}, 2, "9 s", "all processes are there, but a link between two"),
    ],
)
def test_who_did_not_come_is_named(seen, size, limit, told):
    words = absent(seen, 0, size, limit)
    assert told in words
    assert "rank 2" not in words
    assert ("The others waited 9 s" in words) == bool(limit)


def test_of_many_that_did_not_come_three_are_named():
    words = absent({}, 0, 20, "")
    assert words.count("never came") == 3
    assert words.endswith("; and 16 more")


def test_only_errors_of_meetings_are_taken_for_such():
    gloo = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed")
    assert lost_meeting(gloo)
    wrapped = ValueError("a file cannot be used")
    wrapped.__cause__ = gloo
    assert lost_meeting(wrapped)
    assert not lost_meeting(RuntimeError("shapes differ"))
    assert not lost_meeting(ValueError("bad rows"))
    assert time_limit(gloo) == ""
    assert time_limit(RuntimeError("Timed out waiting 9ms")) == "30 minutes (parallel.timeout)"


def test_a_signal_that_comes_while_all_agree_is_kept_for_the_next_time(monkeypatch):
    stop = StopRequest()

    def highest(number):
        stop.signal = 15
        return number

    monkeypatch.setattr(world, "highest", highest)
    assert not world.agree_to_stop(stop)
    assert world.agree_to_stop(stop)
    assert stop.signal == 15


@pytest.mark.usefixtures("signals_arrive")
def test_of_several_processes_a_signal_that_comes_twice_at_once_is_one(monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.exit_code == 143
        assert capfd.readouterr().err == ""  # said once all know
        stop.announce()
        stop.announce()
    assert capfd.readouterr().err.count("stopping once this step is saved") == 1
