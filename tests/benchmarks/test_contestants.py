"""openloop and the stock Trainer work on the same rows, and each counts what it did."""

from contextlib import suppress
from importlib.util import find_spec

import pytest
import torch
from child import Window
from contestants import build, make_shape
from trainer import ShuffledBatches
from transformers.trainer_pt_utils import LengthGroupedSampler

from configs.read import read_config
from tests.tiny_chats import write_chats, write_tiny_chat


@pytest.fixture
def config(recipe):
    """The tiny model with its own head, two epochs of nine steps."""
    path = recipe(head=None, train={"accumulate": 1, "epochs": 2}, eval={"every": 6})
    return read_config(path)


def work(contestant, config, kind, stop_after=None):
    """The answers of windows that are over after each step."""
    answers = []

    def ask():
        if len(answers) == stop_after:
            raise SystemExit
        return 0.0

    window = Window(make_shape(config, contestant.backbone, kind), ask, answers.append)
    with suppress(SystemExit):
        getattr(contestant, kind)(window)
    return answers


def trained(contestant):
    """Shapes of what trains."""
    model = contestant.backbone
    return sorted(tuple(p.shape) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["stock", "stock_tuned"])
def test_both_train_the_same_tokens_of_the_same_model(config, name):
    ours, theirs = (build(config, each, "train") for each in ("openloop", name))
    assert trained(ours) == trained(theirs)
    done = [work(contestant, config, "train") for contestant in (ours, theirs)]
    assert len(done[0]) == len(done[1]) == 18
    for key in ("tokens", "flops"):
        assert sum(a[key] for a in done[0]) == sum(a[key] for a in done[1])
    assert all(answer["peak"] > 2**20 for answers in done for answer in answers)


def test_full_fine_tuning_trains_the_same_tensors(recipe):
    config = read_config(recipe(head=None, lora=None))
    ours, theirs = (build(config, name, "train") for name in ("openloop", "stock"))
    assert trained(ours) == trained(theirs)


@pytest.mark.parametrize("name", ["openloop", "stock", "stock_tuned"])
def test_an_evaluation_counts_whole_passes(config, name):
    contestant = build(config, name, "evaluate")
    answers = work(contestant, config, "evaluate", stop_after=2)
    rows = contestant.rows if name == "openloop" else contestant.rows["validation"]
    assert [answer["tokens"] for answer in answers] == [sum(rows["length"])] * 2


@pytest.mark.parametrize("name", ["openloop", "stock_tuned"])
def test_learning_curves_are_read_at_the_same_steps(config, name):
    curve = build(config, name, "learn").learn()
    assert [step for step, _, _ in curve] == [6, 12, 18]
    seconds = [seconds for _, seconds, _ in curve]
    assert seconds == sorted(seconds)
    assert all(0 <= accuracy <= 1 for _, _, accuracy in curve)


CHATTING = ("stock", "stock_tuned", "stock_flat")
TRL = pytest.mark.skipif(find_spec("trl") is None, reason="trl is optional")


@pytest.fixture
def chatting(recipe, tmp_path, gpt2_like):
    """chatting(**sections): a tiny language model, conversations, two epochs of eight steps."""

    def build(**sections):
        data = {
            "source": write_chats(tmp_path / "chats.jsonl", 44), "max_length": 64,
            "overlong": "right", "validation": 6, "test": 6,
        }  # fmt: skip
        data |= sections.pop("data", {})
        train = {"accumulate": 1, "epochs": 2} | sections.pop("train", {})
        return read_config(
            recipe(
                task={"kind": "chat"}, model={"source": str(gpt2_like)}, head=None, samples=None,
                lora={"targets": "all-linear"}, data=data, eval={"every": 4},
                train=train, **sections,
            )
        )  # fmt: skip

    return build


@pytest.fixture(scope="module")
def gpt2_like(tmp_path_factory):
    return write_tiny_chat(tmp_path_factory.mktemp("chat") / "tiny-gpt2")


@pytest.mark.parametrize(
    "name", [*CHATTING, *(pytest.param(name, marks=TRL) for name in ("trl", "trl_packed"))]
)
def test_conversations_are_the_same_tokens_to_all(chatting, name):
    """Real ones, learned ones and the arithmetic of both, over two epochs; with packs too, which
    are fewer steps."""
    config = chatting()
    ours, theirs, packed = (
        build(chosen, each, "train")
        for chosen, each in (
            (config, "openloop"), (config, name), (chatting(data={"packing": True}), "openloop")
        )
    )  # fmt: skip
    assert trained(ours) == trained(theirs)
    done = [work(contestant, config, "train") for contestant in (ours, theirs, packed)]
    for key in ("tokens", "learned", "flops"):
        assert len({sum(a[key] for a in answers) for answers in done}) == 1, key
    assert done[0][0]["learned"] > 0
    assert len(done[2]) < len(done[0]) == 16
    assert name == "trl_packed" or len(done[1]) == 16


@pytest.mark.parametrize("name", ["openloop", *CHATTING])
def test_perplexity_is_read_at_the_same_steps_and_weighs_each_token_the_same(chatting, name):
    """At the first evaluation hardly anything is learned: all agree."""
    config = chatting(train={"lr": 1e-9})
    contestant = build(config, name, "learn")
    curve = contestant.learn()
    assert [step for step, _, _ in curve] == [4, 8, 12, 16]
    reference = build(config, "openloop", "learn").learn()[0][2]
    assert [value for _, _, value in curve] == pytest.approx([reference] * 4, rel=1e-5)


def test_shuffled_batches_are_the_grouped_ones_in_another_order():
    def grouped():
        generator = torch.Generator().manual_seed(0)
        return LengthGroupedSampler(4, lengths=list(range(1, 200)), generator=generator)

    theirs, ours = (
        [tuple(order[i : i + 4]) for i in range(0, 199, 4)]
        for order in (list(grouped()), list(ShuffledBatches(grouped())))
    )
    assert ours != theirs
    assert sorted(ours) == sorted(theirs)
    assert ours[-1] == theirs[-1]  # the short one stays last
