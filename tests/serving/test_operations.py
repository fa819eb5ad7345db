"""serve.py as it is operated: started, told to end, told that there is a newer run."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from queue import SimpleQueue

import httpx
import pytest
from conftest import ROOT, help_seconds

import serve
from job.folder import Folder
from job.serving import command
from job.serving.labels import LabelDesk
from job.serving.queue import Opened


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


@pytest.fixture
def slow(monkeypatch):
    """Batches take a twentieth of a second, so that a signal meets some."""
    from job.predicting.predictor import Predictor

    real = Predictor.run_rows

    def wait(self, *words):
        time.sleep(0.05)
        return real(self, *words)

    monkeypatch.setattr(Predictor, "run_rows", wait)


class Clients:
    """Threads that ask until they are told to stop; what they heard."""

    def __init__(self, port, count=6):
        self.url = f"http://127.0.0.1:{port}"
        self.heard, self.lost, self.over = [], [], threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(count)]

    def ask(self, number):
        with httpx.Client(base_url=self.url, timeout=20) as client:
            while not self.over.is_set():
                try:
                    answer = client.post("/predict", json={"inputs": f"good film {number}"})
                    self.heard.append((answer.status_code, answer.json(), answer.headers))
                    if answer.status_code == 503:
                        return  # it goes elsewhere
                except httpx.ConnectError:
                    self.over.wait(0.02)  # not there yet, or not any more
                except httpx.HTTPError as error:
                    self.lost.append(error)

    def answers(self):
        return [body for status, body, _ in self.heard if status == 200]

    def until(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        return condition()


def operate(run, acts, *words):
    """serve.main in this thread, and in another one `acts(clients)` once it answers; the status,
    the clients, and the seconds from the end of `acts` on."""
    port = free_port()
    clients, ended = Clients(port), []

    def play():
        try:
            if clients.until(lambda: len(clients.answers()) > 5):
                acts(clients)
        finally:
            ended.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    for thread in clients.threads:
        thread.start()
    player = threading.Thread(target=play)
    player.start()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        status = serve.main(["--run", str(run), "--port", str(port), *words])
        seconds = time.monotonic() - ended[0]
    finally:
        clients.over.set()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for thread in [*clients.threads, player]:
            thread.join()
    return status, clients, seconds


@pytest.mark.usefixtures("signals_arrive")
def test_told_to_end_it_answers_what_it_accepted_and_refuses_what_is_new(run, slow, capsys):
    status, clients, seconds = operate(run, lambda clients: None, "--grace", "5")
    assert status == 0
    assert seconds < 5
    assert clients.lost == []
    assert {status for status, *_ in clients.heard} == {200, 503}
    refused = next(heard for heard in clients.heard if heard[0] == 503)
    assert refused[1]["error_type"] == "unhealthy"
    assert refused[2]["retry-after"] == "5"
    assert refused[2]["connection"] == "close"
    output = capsys.readouterr().err
    assert "answers for one: POST /predict, POST /explain; / is a page to try it, " in output
    assert "ending: " in output
    assert "Traceback" not in output


@pytest.mark.usefixtures("signals_arrive")
def test_what_cannot_be_answered_within_the_grace_is_said(run, monkeypatch, capsys):
    from job.predicting.predictor import Predictor

    real = Predictor.run_rows

    def act(clients):
        def hang(self, *words):
            time.sleep(1.2)
            return real(self, *words)

        monkeypatch.setattr(Predictor, "run_rows", hang)
        time.sleep(0.1)

    left = []
    monkeypatch.setattr(command.os, "_exit", left.append)
    status, clients, seconds = operate(run, act, "--grace", "0.4")
    assert status == 0
    assert seconds < 1.2
    assert "requests got 503, not answers" in capsys.readouterr().err
    assert clients.lost == []
    assert {heard[0] for heard in clients.heard} == {200, 503}
    assert left == [0]


@pytest.mark.usefixtures("signals_arrive")
def test_a_newer_run_takes_over_without_losing_a_request(run, tmp_path, slow, capsys):
    place = tmp_path / "current"
    place.symlink_to(run, target_is_directory=True)
    other = tmp_path / "newer"
    shutil.copytree(run, other)
    said = []
    say = command.say

    def act(clients):
        before = clients.answers()[-1]
        place.unlink()
        place.symlink_to(other, target_is_directory=True)
        os.kill(os.getpid(), signal.SIGHUP)
        assert clients.until(lambda: any("newer answers now" in line for line in said))
        count = len(clients.answers())
        assert clients.until(lambda: len(clients.answers()) > count + 12)
        with httpx.Client(base_url=clients.url) as client:
            said.append(client.get("/info").json()["model_id"])
        assert clients.answers()[-1][0].keys() == before[0].keys()
        (other / "config.toml").write_text("[broken", encoding="utf-8")
        os.kill(os.getpid(), signal.SIGHUP)
        assert clients.until(lambda: any("the run of before goes on" in line for line in said))
        count = len(clients.answers())
        assert clients.until(lambda: len(clients.answers()) > count + 12)
        said.append("through")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "say", lambda line: (said.append(line), say(line)))
        status, clients, _ = operate(place, act)
    assert status == 0
    assert "newer" in said
    assert "through" in said
    assert clients.lost == []
    assert {status for status, *_ in clients.heard} == {200, 503}
    assert "config.toml" in capsys.readouterr().err


@pytest.mark.usefixtures("signals_arrive")
def test_told_to_end_it_does_not_wait_for_a_run_that_is_being_opened(run, slow, monkeypatch):
    """A first SIGHUP comes while the first run is opened, and ends nothing."""
    real, opened, over, left = command.open_run, [], threading.Event(), []

    def open_run(*words):
        opened.append(words)
        if len(opened) == 1:
            os.kill(os.getpid(), signal.SIGHUP)
        else:
            over.wait(20)
        return real(*words)

    monkeypatch.setattr(command, "open_run", open_run)
    monkeypatch.setattr(command.os, "_exit", left.append)
    try:
        status, clients, seconds = operate(
            run, lambda clients: clients.until(lambda: len(opened) == 2), "--grace", "5"
        )
    finally:
        over.set()
    assert (status, len(opened)) == (0, 2)
    assert seconds < 5
    assert left == [0]  # its thread is inside of torch
    assert clients.lost == []
    assert {heard[0] for heard in clients.heard} == {200, 503}


@pytest.mark.usefixtures("signals_arrive")
def test_told_to_end_before_there_is_a_model_it_ends_at_once(run, monkeypatch):
    monkeypatch.setattr(command, "open_run", lambda *words: os.kill(os.getpid(), signal.SIGTERM))
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # as a container's first program
    try:
        with pytest.raises(SystemExit) as ended:
            serve.main(["--run", str(run), "--port", "0"])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == 143


def test_told_to_end_it_sends_an_answer_to_its_end(predictor, serving):
    """One of 25 MB, to a client that takes its time."""
    wide = replace(predictor, label_names=("a" * 50_000, "b" * 50_000))
    body = json.dumps({"inputs": [["good"]] * 256}).encode()
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with serving(LabelDesk(wide, 512)) as server:
        wire = socket.create_connection(("127.0.0.1", server.client.base_url.port), timeout=20)
        wire.sendall(head.encode() + body)
        assert wire.recv(12) == b"HTTP/1.1 200"
        words = (server.service, server.listener, 8.0, SimpleQueue())
        ending = threading.Thread(target=command.drain, args=words)
        ending.start()
        time.sleep(2)
        answer = b""
        while part := wire.recv(1 << 20):
            answer += part
        ending.join()
        wire.close()
    fields, _, content = answer.partition(b"\r\n\r\n")
    assert f"content-length: {len(content)}".encode() in fields
    assert len(json.loads(content)) == 256


def test_a_run_that_reads_something_else_does_not_take_over(
    predictor, pair_predictor, serving, capsys
):
    with serving(LabelDesk(predictor, 512)) as server:
        before = server.service.run
        newer = Opened(LabelDesk(pair_predictor, 512), "pairs")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command, "open_run", lambda *words: newer)
            command.reload(server.service, Folder("pairs"), None)
        assert server.client.post("/predict", json={"inputs": "good"}).status_code == 200
        assert server.service.run is before
    assert "it reads pairs of texts, and the run of before single texts" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["s\u00e9same", "one\ttwo", "one\ntwo"])
def test_a_token_that_clients_send_in_different_ways_is_refused(monkeypatch, token):
    monkeypatch.setenv("TOKEN_OF_A_TEST", token)
    with pytest.raises(ValueError, match="ASCII"):
        command.read_token("TOKEN_OF_A_TEST")
    monkeypatch.setenv("TOKEN_OF_A_TEST", " plain-1 ")
    assert command.read_token("TOKEN_OF_A_TEST") == b"plain-1"


@pytest.mark.parametrize(
    ("host", "address", "token", "names"),
    [
        ("127.0.0.1", "127.0.0.1", None, {"localhost", "127.0.0.1"}),
        ("LocalHost", "::1", None, {"localhost"}),
        ("127.0.0.1", "127.0.0.1", b"secret", None),
        ("0.0.0.0", "0.0.0.0", None, None),
        ("localhost.example", "10.0.0.7", None, None),
    ],
)
def test_names_are_checked_where_this_machine_alone_asks_without_a_token(
    host, address, token, names
):
    assert command.own_names(host, address, token) == names


def test_a_port_in_use_is_one_message_before_torch_is_loaded(tmp_path):
    program = "import sys; sys.modules['torch'] = None; import serve; sys.exit(serve.main())"
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        words = [sys.executable, "-c", program, "--run", str(tmp_path), "--port", str(port)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stderr == (
        f"serve.py: port {port} of 127.0.0.1 is in use; choose another one (--port 0 takes any "
        "that is free)\n"
    )


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--host", "256.1.1.1"], "--host 256.1.1.1: no address"),
        (["--token-env", "NOT_THERE"], "there is no environment variable NOT_THERE"),
        (["--unsure", "2"], "unsure is 2.0"),
        (["--threshold", "grand=0.5"], "no such label"),
    ],
)
def test_what_a_person_can_mend_is_one_message(run, capsys, words, part):
    assert serve.main(["--run", str(run), "--port", "0", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    output = [line for line in lines if "openloop:" not in line and "opening" not in line]
    assert len(output) == 1
    assert part in output[0]


def test_the_run_is_named_before_it_is_opened(tmp_path, monkeypatch, capsys):
    def open_run(*words):
        raise ValueError("not now")

    monkeypatch.setattr(command, "open_run", open_run)
    assert serve.main(["--run", str(tmp_path), "--port", "0"]) == 2
    output = capsys.readouterr().err
    assert output == f"serve.py: opening {tmp_path} …\nserve.py: not now\n"


def test_options_of_labels_are_refused_for_a_chat(tmp_path, capsys, monkeypatch):
    from argparse import Namespace

    from job.tasks.chat import Chat

    options = Namespace(unsure=0.5, threshold=[], run=str(tmp_path))
    with pytest.raises(ValueError, match="--unsure: this run is a language model"):
        Chat().desk(options, lambda: None, 512)


def test_a_missing_package_is_named_with_the_command(run, monkeypatch, capsys):
    monkeypatch.setattr("job.extras.MODULES", {"serve": ("fastapi", "no_such_package")})
    assert serve.main(["--run", str(run)]) == 2
    output = capsys.readouterr().err
    assert "serve.py needs no_such_package" in output
    assert "pip install -c " in output


def test_whoever_serves_other_machines_without_a_token_is_warned(capsys):
    class Run:
        name = "tiny"

        class desk:
            @staticmethod
            def info():
                return {"routes": ["POST /predict"]}

    class Open:
        run, token = Run, None

    command.announce(Open, "0.0.0.0", 8000)
    assert "WARNING: whoever reaches this machine" in capsys.readouterr().err
    command.announce(Open, "::1", 8000)
    assert capsys.readouterr().err.startswith("serve.py: http://[::1]:8000 answers for tiny")


def test_help_is_there_at_once():
    assert help_seconds("serve.py") < 0.3


def test_the_sealed_sha_is_the_models(run):
    sealed = Folder(run).read_json("result.json")["sha256"]

    class Desk:
        def warm(self):
            pass

    opened = command.open_run(Folder(run), Desk)
    assert (opened.digest, opened.name) == (sealed, "one")
