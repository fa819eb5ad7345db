"""Of several processes one stops, hangs, dies or fails: one message, from one rank, names it."""

import os
import re
import subprocess
import sys
import time

import pytest

from tests.ranks import ROOT, environment_of, free_port

pytestmark = [pytest.mark.usefixtures("signals_arrive"), pytest.mark.timeout(120)]
PLACE = {"PYTHONPATH": str(ROOT)}
NAMES = r"x.py: rank \d of \d: rank 1 \(host \S+, process \d+\) "
GONE = NAMES + r"has gone: .*; it was last in step 7; go on with --resume\n"
STUCK = NAMES + r"%s The others waited 8 s \(parallel.timeout\).*; go on with --resume\n"
SAYS = {
    "SIGKILL": GONE,
    "SIGSEGV": GONE,
    "exit": GONE,
    "SIGSTOP": STUCK % r"is stopped, by SIGSTOP or a debugger; it was last in step 7\.",
    "loop": STUCK % r"did not come: it is at .*failing.py:\d+ \(fail\), for \d+ s in step 7\.",
    "bug": r"Traceback(.|\n)*RuntimeError: ours",
    "memory": "x.py: rank 1 of .: out of memory: memory or threads are limited here",
    "interrupt": "x.py: rank 1 of .: interrupted; go on with --resume",
}


def start_failing(size, *words, absent=()):
    """The processes of tests/failing.py, without those of the ranks that never come."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, "tests/failing.py", *words], cwd=ROOT, encoding="utf-8",
            env=environment_of(rank, size, port) | PLACE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(size)
        if rank not in absent
    ]  # fmt: skip


def ends(processes, stuck=None):
    """Status and words of each; the one that is stuck is ended once the others have left."""
    done = {}
    for rank, process in enumerate(processes):
        if rank != stuck:
            done[rank] = (process, process.communicate(timeout=60)[1])
    if stuck is not None:
        processes[stuck].kill()
        done[stuck] = (processes[stuck], processes[stuck].communicate()[1])
    return [(process.returncode, told) for process, told in (done[rank] for rank in sorted(done))]


def check(kind, size, *words):
    begun = time.monotonic()
    ended = ends(start_failing(size, kind, *words), stuck=1 if kind == "SIGSTOP" else None)
    told = "".join(words for _, words in ended)
    assert re.search(SAYS[kind], told), told
    assert told.count("x.py: ") + told.count("Traceback") == 1, told
    status = {"bug": 1, "interrupt": 130}.get(kind, 2)
    own = {"SIGKILL": -9, "SIGSEGV": -11, "SIGSTOP": -9, "exit": 7}.get(kind, status)
    assert [code for code, _ in ended] == [own if r == 1 else status for r in range(size)]
    assert time.monotonic() - begun < 100


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGSTOP"])
def test_a_process_that_dies_or_stops_is_named_in_one_message(kind):
    check(kind, 2)


@pytest.mark.ranks
@pytest.mark.parametrize("words", [(), ("torch",)], ids=["ours", "within_torch"])
@pytest.mark.parametrize("kind", SAYS)
def test_whatever_becomes_of_one_process_one_message_names_it(kind, words):
    check(kind, 3, *words)


@pytest.mark.ranks
def test_a_process_that_never_comes_is_named():
    (code, told), (other, silent) = ends(start_failing(3, "none", absent=[1]))
    assert (code, other) == (2, 2)
    assert "rank 1 never came: its process did not start, or ended before" in told + silent
    assert (told + silent).count("x.py: ") == 1


def run_alone(**environment):
    done = subprocess.run(
        [sys.executable, "tests/failing.py", "none"], cwd=ROOT, encoding="utf-8",
        env=os.environ | PLACE | environment, capture_output=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_several_processes_without_a_place_to_meet_are_told_what_is_missing():
    code, told = run_alone(WORLD_SIZE="2", RANK="1")
    assert code == 2
    assert told.startswith("x.py: rank 1 of 2: WORLD_SIZE is 2, but MASTER_ADDR=None")
    assert "unset WORLD_SIZE" in told


@pytest.mark.ranks
def test_a_port_in_use_is_one_message():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, told = run_alone(
            WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port
        )  # fmt: skip
    assert code == 2, told
    assert f"the processes cannot meet at 127.0.0.1:{port}" in told
    assert len(told.splitlines()) == 1
