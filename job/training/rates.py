"""Which parameters learn at a rate of their own, and from which step on."""

from torch import nn

from configs.schema import Train
from models.args import ModelArgs
from models.methods import Method
from models.trainable import layers_above

LARGE = 1e-3  # at which whole pretrained layers forget rather than learn


def rate_notes(train: Train, args: ModelArgs) -> list[str]:
    """A warning where whole layers learn at a rate that is meant for what a method adds."""
    if args.method is None or args.trains == "head" or train.lr <= LARGE:
        return []
    return [
        f"WARNING: model.train = {args.trains} beside [{args.method.kind}]: what is pretrained "
        f"learns at train.lr = {train.lr:g} too, a rate for new weights. Lower train.lr, or leave "
        "model.train out"
    ]


def layer_rates(train: Train, model: nn.Module) -> dict[str, float]:
    """Factor of the rate by parameter: `layer_decay` once for each layer between it and the head
    (Clark et al. 2020, arXiv:2003.10555, as "layerwise lr decay"). Raises ValueError where the
    backbone has no layers to tell apart, or none of them learns."""
    if train.layer_decay == 1:
        return {}
    above = _layers_above(model, f"train.layer_decay is {train.layer_decay}")[0]
    return {name: train.layer_decay**distance for name, distance in above.items()}


def rate_factors(train: Train, model: nn.Module, method: Method | None) -> dict[str, float]:
    """Factor of the rate by parameter, where it is not 1: of its layer times of its method."""
    layers, own = layer_rates(train, model), {} if method is None else method.rates(model)
    return {name: layers.get(name, 1.0) * own.get(name, 1.0) for name in {*layers, *own}}


def first_steps(train: Train, model: nn.Module, total_steps: int) -> dict[str, int]:
    """The step from which a parameter moves: the head from the first, then layer after layer from
    the last one down, the embeddings after `unfreeze` of all steps (Howard and Ruder 2018,
    arXiv:1801.06146, "gradual unfreezing"). Raises ValueError as layer_rates does."""
    if train.unfreeze == 0:
        return {}
    above, most = _layers_above(model, f"train.unfreeze is {train.unfreeze}")
    over = train.unfreeze * total_steps
    return {name: int(over * distance / most) for name, distance in above.items()}


def _layers_above(model: nn.Module, setting: str) -> tuple[dict[str, int], int]:
    try:
        above, most = layers_above(model)
    except ValueError as error:
        raise ValueError(f"{setting}, but {error}") from None
    learns = [above[name] for name, p in model.named_parameters() if p.requires_grad]
    if not any(0 < distance < most for distance in learns):
        raise ValueError(f"{setting}, but nothing in the layers of this model learns; remove it")
    return above, most
