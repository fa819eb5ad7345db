"""The costs on paper: the page shows what is worked out, which agrees with counts of others."""

import pytest
import scale_cost
import torch
from arithmetic_decoder import decoder_shape
from scale_cost import GPUS, MODELS, PER_MACHINE, STRATEGIES, cost, put, seconds, sizes_of
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from engine.ways import BUCKET_BYTES, Processes, Way, held
from tests.conftest import ROOT

LLAMA = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32)


def on_paper(build):
    with torch.device("meta"):
        return build()


def test_the_page_shows_what_is_worked_out():
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    assert put(page) == page, "python benchmarks/scale_cost.py --write"


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="cost: llama"):
        put("no marks")


def test_parameters_are_those_of_transformers():
    llama = on_paper(lambda: LlamaForCausalLM(LLAMA))
    bert = on_paper(lambda: BertModel(BertConfig()))
    assert MODELS["llama"].parameters == sum(p.numel() for p in llama.parameters())
    assert MODELS["bert"].parameters == sum(p.numel() for p in bert.parameters())
    linears = [m for m in llama.model.modules() if isinstance(m, nn.Linear)]
    adapters = sum(8 * (layer.in_features + layer.out_features) for layer in linears)
    assert MODELS["lora"].trained == adapters


@pytest.mark.parametrize(("name", "rank", "trains"), [("llama", 0, "all"), ("lora", 8, "lora")])
def test_the_arithmetic_is_that_of_the_decoder_count(name, rank, trains):
    model = MODELS[name]
    pairs = model.tokens * (model.tokens + 1) // 2
    work = [model.tokens, pairs, model.tokens, pairs] * 4
    row = decoder_shape(LLAMA, rank, trains).step_flops(work) / 4
    assert model.flops / model.rows == pytest.approx(row, rel=0.02)


def test_sixteen_bytes_a_parameter_are_kept_once_or_shared_out():
    """As in ZeRO (Rajbhandari et al. 2020, figure 1): 120 GB of 7.5 billion become 1.9 on 64."""
    model = MODELS["bert"]
    per = 16 * model.parameters
    for gpus in GPUS:
        whole = cost(model, "ddp", gpus)  # which sums in a copy
        assert whole.weights + whole.gradients + whole.optimizer - BUCKET_BYTES == per
    once = held(sizes_of(model), Way("fsdp"), Processes(512, 8), 512)
    passing = 4 * (2 * model.layer + (model.parameters - 12 * model.layer))
    own = once.weights + once.gradients - passing + once.optimizer
    assert own == pytest.approx(per / 512, abs=4)
    assert once.gathered == passing


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("gpus", GPUS)
def test_what_is_shared_out_takes_less_and_sends_more_within_reason(name, gpus):
    costs = {strategy: cost(MODELS[name], strategy, gpus) for strategy in STRATEGIES}
    assert costs["full"].held < costs["grad_op"].held
    assert costs["full"].inside >= costs["grad_op"].inside
    assert len({one.compute for one in costs.values()}) == 1
    if gpus <= PER_MACHINE:
        assert costs["hybrid"] == costs["full"]
    else:
        assert costs["full"].held <= costs["hybrid"].held


def test_a_slower_network_takes_longer_and_none_counts_inside_a_machine():
    model = MODELS["llama"]
    slow, fast = sorted(scale_cost.NETWORKS.values())
    for strategy in STRATEGIES:
        times = [seconds(cost(model, strategy, 64), 64, strategy, rate) for rate in (fast, slow)]
        assert times[0] < times[1]
        alone = cost(model, strategy, 8)
        assert seconds(alone, 8, strategy, slow) == alone.inside / scale_cost.NVLINK
