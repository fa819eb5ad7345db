"""The contestants as processes of their own."""

import pytest
from contestants import start_child

from configs.read import read_config

pytestmark = pytest.mark.slow


@pytest.fixture
def start(recipe):
    """start(contestant, work) -> a running Child on the tiny model; closed at the end."""
    path = recipe(head=None, train={"accumulate": 1, "epochs": 2}, eval={"every": 6})
    children = []

    def run(contestant, work, dtype="fp32"):
        config = read_config(path, [f"precision.dtype={dtype}"])
        children.append(start_child(contestant, work, config))
        return children[-1]

    yield run
    for each in children:
        each.close()


@pytest.mark.parametrize("contestant", ["openloop", "stock", "stock_tuned"])
def test_a_child_answers_each_window(start, contestant):
    worker = start(contestant, "evaluate")
    for _ in range(2):
        window = worker.ask(0.1)
        assert window["seconds"] >= 0.1
        assert window["tokens"] > 0
        assert 0 < window["imports"] < window["peak"]


@pytest.mark.parametrize("work", ["train", "evaluate"])
def test_the_tuned_contestant_works_in_bf16(start, work):
    assert start("stock_tuned", work, "bf16").ask(0.0)["dtype"] == "bf16"


def test_a_child_learns_to_the_end(start):
    worker = start("openloop", "learn")
    worker.wait_ready()
    assert [step for step, _, _ in worker.read()["curve"]] == [6, 12, 18]


def test_a_child_that_fails_says_why(start):
    with pytest.raises(RuntimeError, match="no_such_work"):
        start("openloop", "no_such_work").ask(1.0)
