"""A prefix in one attention, and transformers' attention that reads it.

models/methods/prefix.py puts one into each layer; the fast paths put it before the texts of a
stream themselves (models/fast/layout.py).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from files.errors import meets_limit, one_line
from models.methods.method import Added, added_modules

READS, WATCHES = "openloop_prefix", "openloop_watch"


class Prefix(Added):
    """`keys` and `values` (P, H, D) of one attention module, which holds this as its `prefix`."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys = nn.Parameter(keys)
        self.values = nn.Parameter(values)

    def put_before(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, T, D) each -> (B, H, P + T, D)."""
        longer = []
        for own, text in ((self.keys, key), (self.values, value)):
            copies = own.transpose(0, 1).to(text.dtype).expand(len(text), -1, -1, -1)
            longer.append(torch.cat([copies, text], 2))
        return longer[0], longer[1]

    def lengthen(self, mask: Tensor | None) -> Tensor | None:
        """A mask (..., T) of keys, 1 or true for those that are read -> (..., P + T)."""
        return None if mask is None else F.pad(mask, (len(self.keys), 0), value=1)

    def merged_weight(self) -> Tensor:
        raise ValueError(
            "a prefix cannot be merged: it is more keys and values in each layer, and no weight "
            "does their work"
        )


def prefixes_of(model: nn.Module) -> list[Prefix]:
    """The prefixes in a model, in the order of its layers."""
    return [module for module in added_modules(model).values() if isinstance(module, Prefix)]


def keys_in_front(model: nn.Module) -> int:
    """How many keys stand before those of each text; 0 without a prefix."""
    return max((len(prefix.keys) for prefix in prefixes_of(model)), default=0)


def whole_mask(*args: Any, **others: Any) -> Tensor | None:
    """sdpa_mask, always built: what it leaves out says nothing of a prefix."""
    never = {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
    return sdpa_mask(*args, **(others | never))


def attend_with_prefix(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    is_causal: bool | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' SDPA, with the module's prefix before keys and values (B, H, T, D). What is
    causal stands in the mask."""
    key, value = module.prefix.put_before(key, value)
    mask = module.prefix.lengthen(attention_mask)
    return sdpa_attention_forward(module, query, key, value, mask, is_causal=False, **others)


def read_prefixes(inner: PreTrainedModel) -> None:
    """Let each attention module read its prefix from now on."""
    AttentionInterface.register(READS, attend_with_prefix)
    AttentionMaskInterface.register(READS, whole_mask)
    inner.set_attn_implementation(READS)


@torch.no_grad()
def watch_attention(inner: PreTrainedModel, ids: Tensor) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Keys and values, (rows * columns, H, D) each, that every attention module makes of the words
    ids (rows, columns), in the order of the layers. Raises ValueError, with the reason, where a
    layer has none that go by queries and keys alone."""
    calls, seen = 0, dict[nn.Module, Any]()

    def watch(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
        attention_mask: Tensor | None, is_causal: bool | None = None, **others: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        nonlocal calls
        mask = attention_mask  # some call it by this name
        plain = mask is not None and mask.dtype == torch.bool and "position_bias" not in others
        if not plain or key.shape[2] != query.shape[2]:
            raise ValueError("its attention goes by more than queries and keys")
        calls += 1
        seen.setdefault(module, tuple(t.transpose(1, 2).flatten(0, 1) for t in (key, value)))
        return sdpa_attention_forward(module, query, key, value, mask, is_causal=False, **others)

    AttentionInterface.register(WATCHES, watch)
    AttentionMaskInterface.register(WATCHES, whole_mask)
    before, training = inner.config._attn_implementation, inner.training
    inner.set_attn_implementation(WATCHES)
    try:
        with torch.random.fork_rng(devices=[]):
            inner.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    except ValueError:
        raise
    except Exception as error:  # whatever the model's code raises
        if meets_limit(error):
            raise
        raise ValueError(f"it does not run ({one_line(error, 200)})") from error
    finally:
        inner.train(training)
        inner.set_attn_implementation(before)
    layers = inner.config.get_text_config().num_hidden_layers
    if calls != layers:
        raise ValueError(
            f"{calls} of its {layers} layers have an attention that takes more keys"
            if calls
            else "its attention takes no more keys"
        )
    return seen
