"""Every method and both tasks, in shards and with layers split: as one process, or refused."""

import pytest
import torch

from models.split import PLANS
from tests.ranks import flat, start_ranks
from tests.spreads import WAYS, train

NORM_WITHIN_HEADS = ("qwen3", "every weight")
SPLIT = ("LoRA", "rsLoRA", "every weight", "last layer", "head", "biases", "recomputed")


@pytest.fixture(scope="session")
def sources(tmp_path_factory, tiny_tokenizer, chat_tokenizer):
    """sources("bert", 4) -> folder of a random backbone of so many heads, or language model."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    made = {}

    def folder(kind, chat=False):
        if (kind, chat) in made:
            return made[kind, chat]
        tokenizer = chat_tokenizer if chat else tiny_tokenizer
        values = {
            "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 40,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        if "num_key_value_heads" in AutoConfig.for_model(kind).to_dict():
            values |= {"num_key_value_heads": 2, "head_dim": 4}
        torch.manual_seed(1)
        auto = AutoModelForCausalLM if chat else AutoModel
        path = tmp_path_factory.mktemp("spread") / kind
        auto.from_config(AutoConfig.for_model(kind, **values)).save_pretrained(path)
        tokenizer.save_pretrained(path)
        made[kind, chat] = str(path)
        return str(path)

    return folder


def assert_same(one, other, case):
    for name in ("losses", "norms"):
        assert other[name] == pytest.approx(one[name], abs=1e-9), case
    assert one["weights"].keys() == other["weights"].keys()
    for name, weight in one["weights"].items():
        assert flat(other["weights"][name]) == pytest.approx(flat(weight), abs=1e-9), (case, name)


def compare(cases, size, tensor):
    """Each case in one process, and in several."""
    for rank in start_ranks("tests.spreads:train_each", size, cases, seconds=500, tensor=tensor):
        for case, other in zip(cases, rank, strict=True):
            assert not isinstance(other, str), (case, other)
            source, way, kind, *_ = case
            # without dropout where layers are split
            one = ONE.setdefault((source, way, kind, tensor > 1), None)
            if one is None:
                one = ONE[source, way, kind, tensor > 1] = train(
                    *case[:3], None, 1, 0.0 if tensor > 1 else None
                )
            assert_same(one, other, case)


ONE: dict = {}


def test_a_layer_split_in_two_trains_as_a_whole_one(sources):
    compare([[sources("bert"), "LoRA", "single", None, 2]], 2, 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_layer_split_in_two_and_in_shards_trains_as_a_whole_one(sources):
    cases = [[sources("bert"), "LoRA", "single", "full", 2],
             [sources("llama", True), "every weight", "chat", "full", 2]]  # fmt: skip
    compare(cases, 4, 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", ["full", "grad_op"])
def test_every_method_trains_in_shards_as_whole(sources, shard):
    cases = [[sources("bert"), way, "single", shard, 1] for way in WAYS]
    compare(cases, 2, 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_language_models_train_in_shards_as_whole(sources):
    ways = ("LoRA", "every weight", "head", "Prompt", "recomputed")
    cases = [[sources("llama", True), way, "chat", "full", 1] for way in ways]
    compare(cases, 3, 1)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "shard",
    [pytest.param(None, marks=pytest.mark.slow), pytest.param("full", marks=pytest.mark.ranks)],
)
def test_every_plan_splits_its_family(sources, shard):
    size = 2 if shard is None else 4
    cases = [[sources(kind), way, "single", shard, 2]
             for kind in PLANS for way in ("LoRA", "every weight")
             if (kind, way) != NORM_WITHIN_HEADS]  # fmt: skip
    cases += [[sources("bert"), way, "single", shard, 2] for way in SPLIT]
    compare(cases, size, 2)


@pytest.mark.slow
def test_what_has_no_plan_is_refused_with_the_reason(sources):
    others = [way for way in WAYS if way not in SPLIT and way not in ("Prompt",)]
    cases = [[sources("bert"), way, "single", None, 2] for way in others]
    cases += [[sources(NORM_WITHIN_HEADS[0]), NORM_WITHIN_HEADS[1], "single", None, 2]]
    for rank in start_ranks("tests.spreads:train_each", 2, cases, seconds=300, tensor=2):
        for case, answer in zip(cases, rank, strict=True):
            assert isinstance(answer, str), case
            assert answer.startswith("parallel.tensor is 2: "), case
