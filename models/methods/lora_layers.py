"""LoRA by hand (Hu et al. 2021, arXiv:2106.09685): a frozen layer and a low-rank path beside it.

              x (..., in)
        ┌─────────┴─────────┐
        │                dropout
        │                   │
    base (frozen)     lora_A (R, in)     Kaiming-uniform: within ±1/sqrt(in)
     W x + b                │
        │             lora_B (out, R)    zero: the first forward is the base's own
        │                   │
        │           · scaling = alpha/R
        └─────────(+)───────┘
              y (..., out)

The two paths become one weight, W + scaling · B A, only when models.methods.method.merge is called;
going into evaluation mode changes nothing. Below it stand the layers that change one thing of it:

    rsLoRA   scaling = alpha/sqrt(R)
    DoRA     a length for each row of W + scaling · B A, learned apart from its direction
    PiSSA    another beginning: A and B hold the largest singular values of W
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from models.methods.linears import linear_size
from models.methods.method import Added


class LoRALinear(Added):
    """`base` (a Linear or GPT-2's Conv1D) plus scaling · B A x. A variant overrides `forward` and
    `merged_weight` and is a row of VARIANTS, or a class in a user's own file. In a run
    models/fast/linear.py:product_forward computes the same in its place, unless speed.lora is off.

    `peft_keys` is what adapter_config.json says of the variant: see peft_keys_of.
    """

    peft_names: ClassVar[dict[str, str]] = {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"}
    peft_keys: ClassVar[dict[str, Any]] = {}
    start_A: Tensor | None  # (R, in), of PiSSA alone
    start_B: Tensor | None  # (out, R)

    def __init__(self, base: nn.Linear | Conv1D, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        inputs, outputs = linear_size(base)
        self.base = base
        self.scaling = self.scale(alpha, rank)
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, inputs))
        self.lora_B = nn.Parameter(base.weight.new_zeros(outputs, rank))
        self.register_buffer("start_A", None)
        self.register_buffer("start_B", None)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    @staticmethod
    def scale(alpha: float, rank: int) -> float:
        """What the low-rank path is multiplied by."""
        return alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x)  # (..., out)
        if self.merged:
            return out
        A, B = self.pair()
        low = F.linear(self.dropout(x), A)  # (..., R)
        return out + F.linear(low, B) * self.scaling

    def pair(self) -> tuple[Tensor, Tensor]:
        """A (R, in) and B (out, R) as they multiply: those that train, and with PiSSA what they
        were at the start, taken off again (R is then twice the rank)."""
        if self.start_A is None or self.start_B is None:
            return self.lora_A, self.lora_B
        return torch.cat([self.lora_A, self.start_A]), torch.cat([self.lora_B, -self.start_B], 1)

    @torch.no_grad()
    def start_from(self, A: Tensor, B: Tensor) -> None:
        """Begin with these two, so that the layer still gives what its base gives."""
        self.lora_A.copy_(A)
        self.lora_B.copy_(B)
        self.start_A, self.start_B = self.lora_A.detach().clone(), self.lora_B.detach().clone()

    # What model code asks of the layer that this one stands for.

    @property
    def weight(self) -> Tensor:
        """What a Linear here would multiply by, in its dtype: code that multiplies by `weight`
        itself (DeBERTa does) sees the adapter too, though not its dropout."""
        if self.merged:
            return self.base.weight
        return self.merged_weight().to(self.base.weight.dtype)

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    @property
    def in_features(self) -> int:
        return self.lora_A.shape[1]

    @property
    def out_features(self) -> int:
        return self.lora_B.shape[0]

    def change(self) -> Tensor:
        """scaling · B A, laid out as base.weight is: (out, in), for a Conv1D (in, out)."""
        A, B = self.pair()
        change = (B @ A) * self.scaling
        return change.T if isinstance(self.base, Conv1D) else change

    def merged_weight(self) -> Tensor:
        """The one weight that does the work of both paths, laid out as base.weight is."""
        return self.base.weight + self.change()

    # Its file. With PiSSA a plain adapter of twice the rank on the unchanged base, as PEFT's own
    # conversion gives: what trains in the first half, the start in the second.

    def to_file(self) -> dict[str, Tensor]:
        own = super().to_file()
        if self.start_A is not None:
            del own["start_A"], own["start_B"]
            own["lora_A.weight"], own["lora_B.weight"] = self.pair()
        return own

    def from_file(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        own = super().from_file(tensors)
        if self.start_A is not None and len(own["lora_A"]) == 2 * len(self.lora_A):
            own["lora_A"], own["start_A"] = own["lora_A"].chunk(2)
            own["lora_B"], below = own["lora_B"].chunk(2, -1)
            own["start_B"] = -below
        return own


class RSLoRALinear(LoRALinear):
    """rsLoRA (Kalajdzievski 2023, arXiv:2312.03732): with alpha/R a larger rank learns no faster
    than a small one; with alpha/sqrt(R) its size is used."""

    peft_keys: ClassVar[dict[str, Any]] = {"use_rslora": True}

    @staticmethod
    def scale(alpha: float, rank: int) -> float:
        return alpha / rank**0.5


class DoRALinear(LoRALinear):
    """DoRA (Liu et al. 2024, arXiv:2402.09353): LoRA turns the rows of the weight, and a vector of
    its own says how long each is.

        V = W + scaling · B A           direction, (out, in)
        y = m · V x / |V| + b           m (out,) begins as |W|: the first forward is the base's own

    As in the paper (section 4.3) and PEFT no gradient goes through |V|.
    """

    peft_names: ClassVar[dict[str, str]] = {
        **LoRALinear.peft_names,
        "magnitude": "lora_magnitude_vector",
    }
    peft_keys: ClassVar[dict[str, Any]] = {"use_dora": True}

    def __init__(self, base: nn.Linear | Conv1D, rank: int, alpha: float, dropout: float) -> None:
        super().__init__(base, rank, alpha, dropout)
        self.magnitude = nn.Parameter(self.lengths(base.weight.detach()))

    def lengths(self, weight: Tensor) -> Tensor:
        """|V| (out,) of a weight laid out as base.weight is."""
        norms = weight.float().norm(dim=0 if isinstance(self.base, Conv1D) else 1)
        return norms.clamp(min=torch.finfo(norms.dtype).tiny)  # of a row of zeros

    def gain(self) -> Tensor:
        """m / |V|, (out,): in float32, whatever autocast says."""
        with torch.no_grad(), torch.autocast(self.magnitude.device.type, enabled=False):
            lengths = self.lengths(super().merged_weight())
        return self.magnitude / lengths

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x)  # (..., out)
        if self.merged:
            return out
        A, B = self.pair()
        dropped, weight, gain = self.dropout(x), self.base.weight, self.gain()
        straight = F.linear(dropped, weight.T if isinstance(self.base, Conv1D) else weight)
        turned = F.linear(F.linear(dropped, A), B) * self.scaling
        return (out + (gain - 1) * straight + gain * turned).to(out.dtype)

    def merged_weight(self) -> Tensor:
        gain = self.gain()
        return super().merged_weight() * (gain if isinstance(self.base, Conv1D) else gain[:, None])


VARIANTS: dict[str, type[LoRALinear]] = {
    "lora": LoRALinear,
    "rslora": RSLoRALinear,
    "dora": DoRALinear,
}


def peft_keys_of(kind: type[LoRALinear]) -> dict[str, Any] | None:
    """What adapter_config.json says of a variant; None where PEFT has no form of it: then its file
    is one that PEFT refuses. It is not inherited, and a user's own class is not asked: what it
    computes is not known here."""
    return vars(kind).get("peft_keys") if kind in VARIANTS.values() else None


@torch.no_grad()
def principal_pair(layer: LoRALinear) -> tuple[Tensor, Tensor]:
    """PiSSA (Meng et al. 2024, arXiv:2404.02948): A and B with scaling · B A = U S Vᵀ, of the
    R largest singular values of W alone. What is left of W stays frozen: W x less what they were at
    the start, so that W is still the weight that others have."""
    base, rank = layer.base, len(layer.lora_A)
    weight = base.weight.T if isinstance(base, Conv1D) else base.weight  # (out, in)
    if rank > min(weight.shape):
        raise ValueError(
            f'lora.init = "pissa" with rank {rank}: a layer of {tuple(weight.shape)} has only '
            f"{min(weight.shape)} singular values"
        )
    U, S, Vh = torch.linalg.svd(weight.float(), full_matrices=False)
    root = (S[:rank] / layer.scaling).sqrt()  # (R,)
    return root[:, None] * Vh[:rank], U[:, :rank] * root
