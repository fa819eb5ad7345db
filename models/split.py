"""Layers split over several processes (Megatron: Shoeybi et al. 2019, arXiv:1909.08053).

    h ──> columns: query, key, value, gate, up   each process has some heads, some of the width
            │  attention and bend, on what is here
            └─> rows: output, down               each process's part of the sum, then the sum

Between the two nothing is sent; behind them one sum over all. What is in no plan (embeddings,
norms, the head) is whole on all of them. An adapter is split as its layer is: B with the columns,
A with the rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import (
    DTensor,
    Placement,
    Replicate,
    Shard,
    distribute_module,
    distribute_tensor,
)

from models.adjust import dropout_fields
from models.blocks import blocks_of
from models.heads import transformers_model
from models.methods.lora_layers import LoRALinear, RSLoRALinear
from models.methods.method import added_modules


@dataclass(frozen=True)
class Plan:
    """Ends of names of the layers whose outputs, and of those whose inputs, are split."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]


BERT_LIKE = Plan(("self.query", "self.key", "self.value", "intermediate.dense"), ("output.dense",))
LLAMA_LIKE = Plan(
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"),
    ("self_attn.o_proj", "mlp.down_proj"),
)
PLANS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), BERT_LIKE),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "smollm3"), LLAMA_LIKE),
}
SIZES = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


def why_whole(model: nn.Module, parts: int) -> str | None:
    """Why the layers of a model cannot be split in so many parts; None where they can."""
    config = transformers_model(model).config
    if config.model_type not in PLANS:
        return f"there is no plan for {config.model_type!r}; there are for {', '.join(PLANS)}"
    for name in SIZES:
        if (size := getattr(config, name, None)) is not None and size % parts:
            return f"its {name} of {size} makes no {parts} equal parts"
    drops = [name for name in dropout_fields(config) if "attention" in name or "probs" in name]
    if rates := [f"{name} {getattr(config, name)}" for name in drops if getattr(config, name)]:
        return (
            f"dropout inside of a split layer ({rates[0]}) would fall elsewhere than in one "
            "process: set model.dropout = 0"
        )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and any(norm in name for norm in (".q_norm.", ".k_norm.")):
            return (
                f"{name} trains, a norm within heads, of which each process sees its own alone: "
                "take [lora], which leaves it frozen"
            )
    for name, layer in added_modules(model).items():
        if type(layer) not in (LoRALinear, RSLoRALinear):
            return f"{type(layer).__name__} of {name} has no plan; [lora] without dora has"
        if not isinstance(layer.dropout, nn.Identity):
            return "lora.dropout would fall elsewhere than in one process: set it to 0"
        if layer.start_A is not None:
            return 'lora.init = "pissa" has no plan: use "kaiming"'
    return None


def split_layers(model: nn.Module, mesh: DeviceMesh) -> None:
    """Split the layers of the model's plan over `mesh`, in place: their parameters become DTensors
    of the same names. Raises ValueError where it has no plan or is of a size that does not fit."""
    if (reason := why_whole(model, mesh.size())) is not None:
        raise ValueError(f"parallel.tensor is {mesh.size()}: {reason}")
    for layer, rows in planned(model):
        split_layer(layer, mesh, rows)


def planned(model: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """The layers of the model's plan, and whether each is split by rows."""
    plan = PLANS[transformers_model(model).config.model_type]
    for block in blocks_of(model):
        for part in block:
            for name, layer in part.named_modules():
                if name.endswith(plan.rows):
                    yield layer, True
                elif name.endswith(plan.columns):
                    yield layer, False


def split_layer(layer: Any, mesh: DeviceMesh, rows: bool) -> None:
    """A linear layer, adapted or not: of its weight (out, in) each process gets some rows of the
    input, (out, in/n), or some of the output, (out/n, in)."""
    put: dict[tuple[Any, str], Placement] = {}
    adapted = isinstance(layer, LoRALinear)
    base = layer.base if adapted else layer
    put[base, "weight"] = Shard(1) if rows else Shard(0)
    if base.bias is not None:
        put[base, "bias"] = Replicate() if rows else Shard(0)
    if adapted:
        put[layer, "lora_A"] = Shard(1) if rows else Replicate()
        put[layer, "lora_B"] = Replicate() if rows else Shard(0)
    for (owner, name), placement in put.items():
        whole = getattr(owner, name)
        # all have the same weights: nothing is sent
        part = distribute_tensor(whole.detach(), mesh, [placement], src_data_rank=None)
        setattr(owner, name, nn.Parameter(part, requires_grad=whole.requires_grad))

    def enter(_: nn.Module, inputs: tuple[Tensor, ...], mesh: DeviceMesh) -> tuple[Tensor, ...]:
        placement = Shard(-1) if rows else Replicate()
        first = DTensor.from_local(inputs[0], mesh, [placement], run_check=False)
        return (first, *inputs[1:])

    def leave(_: nn.Module, output: Any, mesh: DeviceMesh) -> Tensor:
        placement = Replicate() if rows else Shard(-1)
        return output.redistribute(mesh, [placement]).to_local()

    hooks: Any = (enter, leave)  # torch's annotation says that they return nothing
    distribute_module(layer, mesh, None, *hooks)
