"""A server in this process: a port of its own, the tiny runs behind it, and clients to ask it."""

from contextlib import contextmanager

import httpx
import pytest
from chats import make_chat_model, make_chat_tokenizer, make_talker

from openloop import load_run
from job.serving.app import make_app
from job.serving.labels import LabelDesk
from job.serving.listen import Listener, bind
from job.serving.queue import Opened, Worker
from job.serving.service import Limits, Service
from job.serving.talks import TalkDesk


class Running:
    """A server that answers: its address, its service, and what it said."""

    def __init__(self, desk, token=None, verbose=False, names=None, **limits):
        self.lines = []
        self.worker = Worker(Opened(desk, "tiny", "0" * 64, 1_700_000_000))
        self.service = Service(self.worker, Limits(**limits), "0.1.0", token, names)
        held = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{held.getsockname()[1]}"
        self.listener = Listener(make_app(self.service, self.lines.append, verbose), held)

    def start(self):
        self.worker.start()
        self.listener.start()

    def stop(self):
        self.worker.line.close()
        assert self.listener.stop(10)
        self.worker.join(10)
        assert not self.worker.is_alive()


@contextmanager
def start_server(desk, token=None, verbose=False, names=None, **limits):
    """A running server, and a client of it."""
    server = Running(desk, token, verbose, names, **limits)
    server.start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            server.client = client
            yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def predictor(run):
    """The predictor of the tiny run that tells neg from pos."""
    return load_run(run)


@pytest.fixture(scope="session")
def pair_predictor(pair_run):
    return load_run(pair_run)


@pytest.fixture(scope="session")
def talker():
    """A tiny language model that talks nonsense; no end token, so that its length ends a reply."""
    tokenizer = make_chat_tokenizer()
    return make_talker(make_chat_model(tokenizer), tokenizer, ends=(), max_tokens=12)


@pytest.fixture(scope="module")
def server(predictor):
    with start_server(LabelDesk(predictor, 512)) as running:
        yield running


@pytest.fixture(scope="module")
def chat_server(talker):
    with start_server(TalkDesk(talker, "tiny")) as running:
        yield running


@pytest.fixture(scope="session")
def serving():
    """serving(desk, token=…, timeout=…, …): a running server, with a client of it."""
    return start_server
