"""What stands before every route: token, limits, one form for errors, and what is counted."""

import json
import socket
import threading
import time

import pytest

from job.serving.labels import LabelDesk
from job.serving.talks import TalkDesk

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def held(predictor, monkeypatch):
    """held: an event; the model answers nothing before it is set."""
    go = threading.Event()
    real = type(predictor).run_rows

    def wait(self, *words):
        go.wait(20)
        return real(self, *words)

    monkeypatch.setattr(type(predictor), "run_rows", wait)
    yield go
    go.set()


def post_later(server, answers, text="good"):
    """A thread that asks, and keeps the answer."""

    def post():
        answers.append(server.client.post("/predict", json={"inputs": text}))

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401), ("Bearer wrong", 401), ("Bearer", 401), ("Basic secret", 401),
        ("Bearer sécret", 401), ("Bearer secret", 200), ("bearer secret", 200),
    ],
)  # fmt: skip
def test_a_request_without_the_token_is_told_how_to_bring_it(guarded, header, status):
    headers = {} if header is None else {"Authorization": header.encode()}
    answer = guarded.client.post("/predict", json={"inputs": "good"}, headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer TOKEN" in answer.json()["error"]


@pytest.fixture(scope="module")
def guarded(predictor, serving):
    with serving(LabelDesk(predictor, 512), token=b"secret", verbose=True) as server:
        yield server


def test_the_token_is_wanted_of_all_that_answers_and_never_said(guarded):
    for path in ("/health", "/ready", "/docs", "/openapi.json"):
        assert guarded.client.get(path).status_code == 200
    for path in ("/info", "/metrics", "/v1/models", "/nope"):
        assert guarded.client.get(path).status_code == 401
    guarded.client.get("/info?token=secret", headers={"Authorization": "Bearer secret"})
    assert guarded.lines
    assert "secret" not in " ".join(guarded.lines)


def test_a_name_that_another_site_lets_lead_here_is_refused(predictor, serving):
    with serving(LabelDesk(predictor, 512), names=frozenset({"localhost"})) as server:
        port = server.client.base_url.port
        for host in ("localhost", f"LOCALHOST:{port}", f"127.0.0.1:{port}", f"[::1]:{port}",
                     "app.localhost"):  # fmt: skip
            assert server.client.get("/health", headers={"Host": host}).status_code == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[::1"):
            for path in ("/", "/info", "/v1/models"):
                answer = server.client.get(path, headers={"Host": host})
                assert answer.status_code == 421
            posted = server.client.post("/predict", json={"inputs": "good"}, headers={"Host": host})
            assert posted.status_code == 421
            assert "--token-env" in posted.json()["error"]
        described = server.client.get("/openapi.json").json()
        assert "421" in described["paths"]["/predict"]["post"]["responses"]


def test_a_fault_of_ours_has_the_form_of_all_errors_and_is_said(predictor, serving, monkeypatch):
    def stumble(self, route, body, most):
        raise KeyError("/secret/place")

    with serving(LabelDesk(predictor, 512)) as server:
        monkeypatch.setattr(LabelDesk, "read", stumble)
        answer = server.client.post("/predict", json={"inputs": "good"})
        assert (answer.status_code, answer.json()["error_type"]) == (500, "backend")
        assert "secret" not in answer.text
        until(lambda: server.lines)
        assert "KeyError" in server.lines[0]


def test_what_cannot_be_taken_in_ends_its_requests_alone(predictor, serving, monkeypatch):
    real = type(predictor).encode

    def stumble(self, chunk):
        if "boring" in chunk:
            raise MemoryError("no room")
        return real(self, chunk)

    monkeypatch.setattr(type(predictor), "encode", stumble)
    with serving(LabelDesk(predictor, 512)) as server:
        answer = server.client.post("/predict", json={"inputs": "boring"})
        assert (answer.status_code, answer.json()["error_type"]) == (424, "backend")
        assert server.client.post("/predict", json={"inputs": "good"}).status_code == 200
        assert server.worker.opened.desk.parts == {}


def test_one_line_a_request_is_said_where_it_is_asked_for(guarded, server):
    before = len(guarded.lines)
    guarded.client.get("/health")
    until(lambda: len(guarded.lines) == before + 1)
    assert guarded.lines[-1].startswith("127.0.0.1 GET /health 200 ")
    server.client.get("/health")
    assert server.lines == []


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "no JSON"), (b"", "no JSON"), (b"\xff\xfe\xff", "no JSON"), (b"NaN", "NaN"),
        (b"[" * 100_000, "nested too deep"), (b'{"inputs": "\xe9"}', "no JSON"),
        (b"1" * 5000, "no JSON"),
    ],
)  # fmt: skip
def test_bad_json_is_said_as_such(server, body, part):
    answer = server.client.post("/predict", content=body, headers=JSON)
    assert answer.status_code == 422
    assert part in answer.json()["error"]


def test_another_kind_of_body_is_refused(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = server.client.post("/predict", content=b"{}", headers={"Content-Type": kind})
        assert (answer.status_code, kind in answer.json()["error"]) == (415, True)
    body = json.dumps({"inputs": "good"})
    typed = {"Content-Type": "application/json; charset=utf-8"}
    assert server.client.post("/predict", content=body, headers=typed).status_code == 200


def test_a_route_that_is_not_there_is_404_and_another_method_405(server):
    assert server.client.get("/nope").json()["error_type"] == "validation"
    wrong = server.client.get("/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"] == "GET /predict: it is asked by POST; GET /docs says how"


def raw(server, data, more=()):
    """What a server answers to bytes; `more` are sent while it reads."""
    with socket.create_connection(("127.0.0.1", server.client.base_url.port), timeout=10) as wire:
        wire.sendall(data)
        try:
            for part in more:
                wire.sendall(part)
        except OSError:
            pass  # it has heard enough
        answer = b""
        try:
            while part := wire.recv(65536):
                answer += part
        except OSError:
            pass
        return answer


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_a_declared_body_that_is_too_large_is_refused_before_it_is_read(server):
    answer = raw(server, HEAD + b"Content-Length: 99999999999\r\n\r\n")
    assert b" 413 " in answer.splitlines()[0]
    assert b"2,000,000 bytes" in answer


def test_a_body_in_chunks_is_refused_once_it_is_too_large(server):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    sent = []

    def chunks():
        while len(sent) < 400:  # 25 MB, of which hardly more than the limit is read
            sent.append(1)
            yield chunk

    answer = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunks())
    assert b" 413 " in answer.splitlines()[0]
    assert server.client.get("/health").status_code == 200


def test_a_body_that_does_not_come_is_given_up(predictor, serving):
    with serving(LabelDesk(predictor, 512), timeout=0.2) as server:
        answer = raw(server, HEAD + b"Content-Length: 100\r\n\r\n{")
        assert b" 408 " in answer.splitlines()[0]


def test_a_full_queue_is_429_and_says_when_to_come_again(predictor, serving, held):
    with serving(LabelDesk(predictor, 512), waiting=3) as server:
        answers = []
        threads = [post_later(server, answers) for _ in range(3)]
        until(lambda: server.service.waiting == 3)
        refused = server.client.post("/predict", json={"inputs": "good"})
        assert refused.status_code == 429
        assert refused.json()["error_type"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        held.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 3
        assert server.client.post("/predict", json={"inputs": "good"}).status_code == 200


def test_no_answer_in_time_is_504_and_its_work_is_left_undone(predictor, serving, held):
    with serving(LabelDesk(predictor, 512), timeout=0.2) as server:
        first = server.client.post("/predict", json={"inputs": "good"})
        second = server.client.post("/predict", json={"inputs": "bad"})
        assert [first.status_code, second.status_code] == [504, 504]
        assert "--timeout" in first.json()["error"]
        held.set()
        until(lambda: server.worker.opened.desk.parts == {})
        assert server.client.post("/predict", json={"inputs": "good"}).status_code == 200


def test_a_client_that_goes_away_leaves_nothing_behind(predictor, serving, held):
    with serving(LabelDesk(predictor, 512)) as server:
        body = b'{"inputs": "good"}'
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", server.client.base_url.port)) as wire:
                wire.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
                until(lambda: server.service.waiting == 1)
            until(lambda: server.service.waiting == 0)
        held.set()
        until(lambda: server.worker.opened.desk.parts == {})


def test_a_thread_of_the_model_that_ended_is_unhealthy(predictor, serving):
    with serving(LabelDesk(predictor, 512)) as server:
        server.worker.line.close()
        server.worker.join(5)
        answer = server.client.get("/health")
        assert (answer.status_code, answer.json()["error_type"]) == (503, "unhealthy")


def test_what_is_counted_can_be_read_by_prometheus(predictor, serving):
    with serving(LabelDesk(predictor, 512)) as server:
        server.client.post("/predict", json={"inputs": [["good film"], ["good " * 80]]})
        server.client.post("/predict", json={"inputs": 7})
        text = server.client.get("/metrics").text
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert samples['openloop_requests_total{route="/predict",status="200"}'] == "1"
    assert samples['openloop_requests_total{route="/predict",status="422"}'] == "1"
    assert samples["openloop_texts_total"] == "2"
    assert samples["openloop_truncated_total"] == "1"
    assert samples["openloop_queue_seconds_count"] == "1"
    assert samples['openloop_request_seconds_bucket{le="+Inf"}'] == "2"
    answered = [int(n) for name, n in samples.items() if name.startswith("openloop_answers_total")]
    assert sum(answered) == 2
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    for name in samples:
        family = name.partition("{")[0]
        assert any(family == n or family.startswith(f"{n}_") for n in names)


def test_the_state_and_the_run_are_told(server):
    info = server.client.get("/info").json()
    assert info["model_id"] == "tiny"
    assert info["model_type"]["classifier"]["id2label"] == {"0": "neg", "1": "pos"}
    assert info["max_input_length"] == 32
    assert (info["task"], info["kind"], info["labels"]) == ("classify", "single", ["neg", "pos"])


MESSAGES = [{"role": "user", "content": "hello"}]
CASES = [
    ("server", "/predict", {"inputs": "good"}),
    ("server", "/predict", {"inputs": [["good"], [""]], "partial": True}),
    ("server", "/predict", {"inputs": [["good"], [None]], "partial": True}),
    ("server", "/predict", {"inputs": "", "partial": True}),
    ("server", "/predict", {"inputs": ""}),
    ("server", "/predict", {"inputs": "good", "raw_scores": True, "top_k": 1}),
    ("server", "/predict", {"inputs": []}),
    ("server", "/predict", {"inputs": 7}),
    ("server", "/explain", {"inputs": "a good film. a bad plot."}),
    ("server", "/info", None),
    ("server", "/health", None),
    ("server", "/ready", None),
    ("guarded", "/predict", {"inputs": "good"}),
    ("guarded", "/health", None),
    ("guarded", "/metrics", None),
    ("chat_server", "/v1/models", None),
    ("chat_server", "/v1/models/{model}", None),
    ("chat_server", "/v1/chat/completions", {"model": "tiny", "messages": MESSAGES}),
    ("chat_server", "/v1/chat/completions", {"model": "other", "messages": MESSAGES}),
    ("closed_chat", "/v1/models", None),
]


@pytest.fixture(scope="module")
def closed_chat(talker, serving):
    with serving(TalkDesk(talker, "tiny"), token=b"secret") as server:
        yield server


@pytest.mark.parametrize(("name", "path", "body"), CASES)
def test_what_is_answered_is_what_is_described(request, name, path, body):
    import jsonschema_rs

    client = request.getfixturevalue(name).client
    described = client.get("/openapi.json").json()["paths"][path]
    place = path.replace("{model}", "tiny")
    answer = client.get(place) if body is None else client.post(place, json=body)
    route = described["get" if body is None else "post"]
    content = route["responses"][str(answer.status_code)]["content"]
    kind = answer.headers["content-type"].partition(";")[0]
    if kind == "application/json":
        jsonschema_rs.validate(content[kind]["schema"], answer.json())
    assert kind in content
    closed = name in ("guarded", "closed_chat") and route.get("security") != []
    assert (answer.status_code == 401) == closed


def test_docs_need_no_network_and_no_script(server, chat_server, guarded):
    for running in (server, chat_server, guarded):
        page = running.client.get("/docs").text
        described = running.client.get("/openapi.json").json()
        for path in described["paths"]:
            assert path in page
        assert "<script" not in page
        assert "//cdn" not in page
        assert page.count("href=") == 3
    assert "Authorization: Bearer $TOKEN" in guarded.client.get("/docs").text


def test_docs_begin_with_what_a_run_is_for(server, chat_server):
    for running, first in ((server, "/predict"), (chat_server, "/v1/chat/completions")):
        assert next(iter(running.client.get("/openapi.json").json()["paths"])) == first
        page = running.client.get("/docs").text
        assert page.index(f"POST {first}") < page.index("GET /health") < page.index("GET /metrics")


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("models.example:81", "http://models.example:81/predict"),
        ("[::1]:8000", "&#x27;http://[::1]:8000/predict&#x27;"),
        ("a.example';reboot;'", None),
        ("<b>a.example", None),
        ("a.example$(id)", None),
        ("[::1", None),
    ],
)
def test_commands_of_the_docs_ask_the_server_that_showed_them(server, host, shown):
    page = server.client.get("/docs", headers={"Host": host}).text
    assert f" {shown or server.url + '/predict'}</pre>" in page
    assert "localhost:8000" not in page
    if shown is None:
        assert host not in page
        assert "example" not in page
