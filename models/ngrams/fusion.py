"""Two models answer together: an encoder, and a bag of n-grams beside it.

    text -- encoder -- logits --* encoder --+
       \\                                   +-- logits
        -- bag ------- logits --* bag ------+

The two weights are fitted on validation rows. A model folder holds the bag in bag/, as a folder
that numpy alone reads; who opens the folder above with transformers gets the encoder's own logits.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from files.read import read_json
from models.args import ModelArgs
from models.ngrams.bag import NgramBag, NgramTokenizer
from models.ngrams.files import open_arrays, write_arrays
from models.ngrams.fit import Terms

FOLDER, WEIGHTS = "bag", "fusion.json"
FEWEST = 50  # validation rows from which two weights can be told


@dataclass(frozen=True)
class Weights:
    """logits = encoder * the encoder's + bag * the bag's; fitted on so many `rows`, or 0 where
    these were too few and both count the same."""

    encoder: float
    bag: float
    rows: int

    def join(self, encoder: Tensor, bag: Tensor) -> Tensor:
        """(B, C) of both -> (B, C), on the encoder's device, in fp32."""
        return self.encoder * encoder.float() + self.bag * bag.to(encoder.device)


@dataclass(frozen=True)
class Fusion:
    """The bag beside an encoder, and what each of them counts."""

    model: NgramBag
    tokenizer: NgramTokenizer
    weights: Weights

    def answer(self, texts: list[str], pairs: list[str] | None) -> Tensor:
        """The bag's own logits (N, C) of texts, or pairs of texts, read whole."""
        buckets, counts, ends = map(torch.from_numpy, self.tokenizer.count(texts, pairs))
        return self.answer_terms(Terms(buckets, counts, ends.diff()))

    def answer_terms(self, terms: Terms) -> Tensor:
        """The same of texts that were counted already."""
        with torch.no_grad():
            return self.model.answer(terms.buckets, terms.counts, terms.lengths)


def fit_weights(
    encoder: Tensor, bag: Tensor, kind: str, loss_of: Callable[[Tensor], Tensor]
) -> Weights:
    """The weights of logits (N, C) with the least loss, a sum over the rows. Both are brought to
    one scale first, and half the squares of their weights there count as loss too: rows that both
    tell apart without a mistake would call for weights without end. On fewer than FEWEST rows the
    mean of the two: of classes at the encoder's scale, of numbers as they are, since both are in
    one unit."""
    pair = torch.stack([encoder, bag]).double()  # (2, N, C)
    centred = pair - pair.mean(-1, keepdim=True) if kind == "single" else pair
    scales = centred.square().mean((1, 2)).sqrt()  # (2,)
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    if len(encoder) < FEWEST:
        scale = 1.0 if kind == "regression" else scales[0] / scales[1]
        return Weights(0.5, _short(0.5 * scale), 0)
    pair = pair / scales[:, None, None]
    factors = torch.ones(2, dtype=torch.float64, requires_grad=True)

    def objective() -> Tensor:
        loss = loss_of(factors[0] * pair[0] + factors[1] * pair[1]) + factors.square().sum() / 2
        mean = loss / len(encoder)
        (factors.grad,) = torch.autograd.grad(mean, factors)
        return mean.detach()

    torch.optim.LBFGS(
        [factors], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    ).step(objective)  # fmt: skip
    own, other = (factors.detach() / scales).tolist()
    return Weights(_short(own), _short(other), len(encoder))


def _short(value: Tensor | float) -> float:
    """Six digits: what comes behind them depends on the machine, and not on the rows."""
    return float(f"{float(value):.6g}")


def save_fusion(fusion: Fusion, args: ModelArgs, folder: Path) -> None:
    """Write the bag and the weights into bag/ of a model folder that is about to be written."""
    home = folder / FOLDER
    home.mkdir(parents=True)
    write_arrays(fusion.model, args, fusion.tokenizer, home)
    text = json.dumps(asdict(fusion.weights), indent=2) + "\n"
    (home / WEIGHTS).write_text(text, encoding="utf-8")


def load_fusion(folder: Path, num_labels: int) -> Fusion | None:
    """What save_fusion wrote into a model folder; None where nothing stands beside its encoder.
    Raises ValueError where it is damaged."""
    path = folder / FOLDER / WEIGHTS
    if not path.is_file():
        return None
    values = read_json(path, ["encoder", "bag", "rows"])
    numbers = [values[name] for name in ("encoder", "bag", "rows")]
    if not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"{path} is damaged: it holds {values!r:.200}")
    weights = Weights(float(numbers[0]), float(numbers[1]), int(numbers[2]))
    return Fusion(*open_arrays(folder / FOLDER, num_labels), weights)
