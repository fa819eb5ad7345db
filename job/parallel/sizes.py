"""The sizes of a model, from which it is told what each process holds and sends."""

from collections.abc import Callable

from torch import nn

from configs.schema import Config
from engine.precision import DTYPES, Precision
from engine.ways import Sizes
from models.blocks import blocks_of
from models.fast.frozen import frozen_weights
from models.heads import transformers_model
from models.ngrams.bag import NgramBag

# bytes that a layer keeps of each token and number of the hidden state for its backward pass, in
# half precision and without the attention weights (Korthikanti et al. 2022, arXiv:2205.05198)
KEPT, RECOMPUTED = 34, 2


def sizes_of(
    model: nn.Module, config: Config, precision: Precision, activations: int | None = None
) -> Sizes:
    """Bytes of a built model, whole and not yet on its device, and of its largest micro-batch:
    what was measured of that, else what the paper's formula gives for rows of data.max_length."""
    low = DTYPES[precision.dtype].itemsize
    halved = {id(p) for p in frozen_weights(model).values()} if config.speed.frozen else set()

    def size(parameters: list[nn.Parameter]) -> int:
        return sum(p.numel() * (low if id(p) in halved else p.element_size()) for p in parameters)

    every = list(model.parameters())
    blocks = [[p for module in block for p in module.parameters()] for block in blocks_of(model)]
    inside = sum(map(size, blocks))
    return Sizes(
        frozen=size([p for p in every if not p.requires_grad]),
        trained=size([p for p in every if p.requires_grad]),
        block=max(map(size, blocks), default=0),
        outside=size(every) - inside,
        splittable=split_bytes(model, size),
        activations=likely_activations(model, config, low) if activations is None else activations,
    )


def split_bytes(model: nn.Module, size: Callable[[list[nn.Parameter]], int]) -> int:
    """Bytes of the layers that parallel.tensor would split."""
    from models.split import PLANS, planned

    if isinstance(model, NgramBag) or transformers_model(model).config.model_type not in PLANS:
        return 0
    return sum(size(list(layer.parameters())) for layer, _ in planned(model))


def likely_activations(model: nn.Module, config: Config, low: int) -> int:
    """Bytes that a micro-batch of the longest rows keeps for its backward pass."""
    if isinstance(model, NgramBag):
        return 0
    inner = transformers_model(model).config.get_text_config()
    layers = len(blocks_of(model)) or getattr(inner, "num_hidden_layers", 1)
    numbers = config.train.micro_batch_size * config.data.max_length * inner.hidden_size
    if config.model.activation_checkpointing:
        return numbers * low // 2 * (RECOMPUTED * layers + KEPT)
    return numbers * low // 2 * KEPT * layers
