"""A first signal asks, a second one insists."""

import os
import signal

import pytest

from engine.stop import Stopped, StopRequest, stop_on_signals

pytestmark = pytest.mark.usefixtures("signals_arrive")
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


def run_child(body):
    """Exit code of `body` in a forked process; 1 if it raised."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = body()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("number", CODES)
def test_the_first_signal_is_noted_and_the_run_decides_when_to_exit(number):
    def body():
        with stop_on_signals() as stop:
            before = stop.requested, stop.exit_code
            os.kill(os.getpid(), number)
            return stop.exit_code if before == (False, 0) and stop.requested else 2

    assert run_child(body) == CODES[number]


@pytest.mark.parametrize("number", CODES)
def test_a_second_signal_exits_at_once(number):
    def body():
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), number)
            return 3  # never reached

    assert run_child(body) == CODES[number]


def test_handlers_come_back_after_the_block():
    before = [signal.getsignal(number) for number in CODES]
    with stop_on_signals():
        assert [signal.getsignal(number) for number in CODES] != before
    assert [signal.getsignal(number) for number in CODES] == before


def test_guard_passes_batches_until_a_stop_is_requested():
    stop = StopRequest()
    guarded = stop.guard([{"n": 1}, {"n": 2}, {"n": 3}])
    assert [next(guarded)["n"], next(guarded)["n"]] == [1, 2]
    stop.signal = signal.SIGTERM
    with pytest.raises(Stopped):
        next(guarded)


def test_a_signal_that_is_ignored_already_stays_so():
    def body():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            return 2 if stop.requested else 0

    assert run_child(body) == 0


def test_a_terminal_that_is_gone_ends_nothing():
    def body():
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 1)
        os.dup2(write, 2)
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            os.write(1, b"saved")
            return stop.exit_code

    assert run_child(body) == 129
