"""What takes a while to show: no request that a client can think of is a 5xx, no memory is kept."""

import os
import sys
import threading
from pathlib import Path

import pytest

from job.serving.labels import LabelDesk
from job.serving.talks import TalkDesk

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["labels", "chat"])
def test_no_request_of_the_described_kinds_or_of_others_is_a_5xx(kind, request, serving):
    import hypothesis
    import schemathesis
    from schemathesis.generation import GenerationMode

    if kind == "labels":
        desk = LabelDesk(request.getfixturevalue("predictor"), 512)
    else:
        desk = TalkDesk(request.getfixturevalue("talker"), "tiny")
    statuses = []
    with serving(desk) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])

        @hypothesis.settings(
            max_examples=40, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(data=hypothesis.strategies.data())
        def ask(data):
            for operation in operations:
                case = data.draw(operation.as_strategy())
                statuses.append((case.method, case.path, case.call().status_code))

        operations = [result.ok() for result in schema.get_all_operations()]
        ask()
        assert server.client.get("/health").status_code == 200
    assert len(statuses) >= 200
    assert [one for one in statuses if one[-1] >= 500] == []
    assert any(status == 200 for method, _, status in statuses if method.upper() == "POST")
    assert any(400 <= status < 500 for *_, status in statuses)


def memory():
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")
def test_memory_after_5000_requests_is_that_after_500(predictor, serving):
    with serving(LabelDesk(predictor, 4096)) as server:

        def ask(count, texts):
            for number in range(count):
                text = f"{texts} film {number} " * (1 + number % 5)
                assert server.client.post("/predict", json={"inputs": text}).status_code == 200

        def ask_together(count):
            threads = [threading.Thread(target=ask, args=(count // 5, i)) for i in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        ask_together(500)
        before = memory()
        ask_together(4500)
        assert memory() - before <= 50 * 2**20
        assert server.service.waiting == 0
        assert server.worker.opened.desk.parts == {}
