"""What a run costs on many GPUs, worked out on paper: memory, bytes and seconds a step.

    python benchmarks/scale_cost.py            prints the tables
    python benchmarks/scale_cost.py --write    puts them into docs/scale.md

With P parameters of which t train, n GPUs, m = n / 8 machines and k micro-batches a GPU and step:

    strategy    a GPU keeps                          a GPU sends in a step
    DDP         all of it                            2 (n-1)/n G
    grad_op     1/n of weights and optimizer,        (n-1)/n (W + G)
                the gathered weights
    full        1/n, two gathered layers             (n-1)/n (2 k W + G)
    hybrid      as full on the 8 of a machine        7/8 (2 k W + G), and between machines
                                                     2 (m-1)/m G/8

G are the bytes of t gradients in fp32, W those of all weights as they are gathered, in bf16. "full"
gathers a layer in the forward and again in the backward pass of every micro-batch; "grad_op" once a
step. Gradients are summed in the last micro-batch of a step alone; until then, with k > 1,
every GPU keeps all of its own (ZeRO: Rajbhandari et al. 2020; FSDP: Zhao et al. 2023).
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from child import ROOT  # makes the project importable

from files.write import save_text

GPUS = (8, 64, 512)
PER_MACHINE = 8
STRATEGIES = ("ddp", "grad_op", "full", "hybrid")
PEAK, MFU = 989e12, 0.40  # FLOP/s of an H100 SXM in bf16, dense (NVIDIA's data sheet); used of it
HOLDS = 80e9  # bytes of an H100
NVLINK = 450e9  # bytes/s a GPU sends: NVLink 4's 900 GB/s count both directions
NETWORKS = {"NDR": 8 * 50e9, "100 GbE": 12.5e9}  # bytes/s a machine sends: 400 Gb/s a GPU; one card
FP32, BF16 = 4, 2
START, END = "<!-- cost: {} -->", "<!-- /cost -->"


@dataclass(frozen=True)
class Model:
    """A model and how it is trained. `gated`: Llama's layers, without biases; else BERT's, with
    positions and a pooler. `rank` is 0 where every weight trains, else that of LoRA on all linear
    layers."""

    title: str
    layers: int
    hidden: int
    inner: int
    vocabulary: int
    gated: bool
    rank: int
    rows: int  # of a step, of all GPUs
    micro_batch: int
    tokens: int  # of a row
    checkpointing: bool

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        H, inner = self.hidden, self.inner
        if self.gated:
            return 4 * H * H + 3 * H * inner + 2 * H
        return 4 * H * H + 2 * H * inner + 9 * H + inner

    @property
    def parameters(self) -> int:
        """All of the published model."""
        H = self.hidden
        if self.gated:
            return self.layers * self.layer + 2 * self.vocabulary * H + H
        return self.layers * self.layer + (self.vocabulary + 512 + 2) * H + 2 * H + H * H + H

    @property
    def adapters(self) -> int:
        """LoRA's parameters: A and B of each linear layer."""
        H, inner = self.hidden, self.inner
        wide = 3 if self.gated else 2
        return self.layers * self.rank * (4 * 2 * H + wide * (H + inner))

    @property
    def trained(self) -> int:
        return self.adapters if self.rank else self.parameters

    @property
    def activations(self) -> float:
        """Bytes of a micro-batch in bf16, attention's scores never held. Of a layer: what its two
        norms, query, key, value, attention, output and both halves of the MLP keep."""
        width = 8 * self.hidden + (4 if self.gated else 2) * self.inner
        tokens = self.micro_batch * self.tokens
        if self.checkpointing:  # the input of each layer, and one layer again
            return BF16 * tokens * (self.layers * self.hidden + width)
        return BF16 * tokens * self.layers * width

    @property
    def flops(self) -> float:
        """Of a step on all GPUs: 2 a parameter and token forward, as much for the gradients of the
        inputs, and again for those of the weights that train; attention's products beside."""
        per_weight = 4 if self.rank else 6
        linear = per_weight * (self.layers * self.layer) + 6 * self.adapters
        if self.gated:
            linear += per_weight * self.vocabulary * self.hidden  # the head
        pairs = self.tokens / 2 if self.gated else self.tokens  # a decoder looks back alone
        return self.rows * self.tokens * (linear + 12 * self.layers * self.hidden * pairs)


LLAMA = (32, 4096, 11008, 32000)  # Llama 2, 7B
MODELS = {
    "llama": Model("A 7-billion Llama, all weights", *LLAMA, True, 0, 1024, 1, 4096, True),
    "lora": Model("The same with LoRA, r = 8", *LLAMA, True, 8, 1024, 1, 4096, True),
    "bert": Model("BERT-base, all weights", 12, 768, 3072, 30522, False, 0, 16384, 32, 128, False),
}


@dataclass(frozen=True)
class Cost:
    """Bytes a GPU holds, and what a step takes of it."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    inside: float  # bytes a GPU sends a step, within its machine or in a ring through all
    between: float  # bytes it sends to other machines alone: of hybrid
    compute: float  # seconds

    @property
    def held(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations


def cost(model: Model, strategy: str, gpus: int) -> Cost:
    """Of one of STRATEGIES."""
    several = model.rows // (gpus * model.micro_batch)  # micro-batches a GPU and step
    frozen = model.parameters if model.rank else 0
    own = FP32 * model.trained + BF16 * frozen  # frozen weights are kept in bf16
    gradients, gathered = FP32 * model.trained, BF16 * (model.parameters + model.adapters)
    shards = {"ddp": 1, "hybrid": min(gpus, PER_MACHINE)}.get(strategy, gpus)
    away = 1 - 1 / shards  # what others keep
    weights, sent, between = own / shards, 0.0, 0.0
    if strategy == "ddp":
        sent = 2 * (1 - 1 / gpus) * gradients
    elif strategy == "grad_op":
        weights += gathered
        sent = away * (gathered + gradients)
    else:
        weights += 2 * BF16 * model.layer  # the layer at work, and the next one on its way
        sent = away * (2 * several * gathered + gradients)
    if strategy == "hybrid":
        machines = gpus // PER_MACHINE
        between = 2 * (1 - 1 / machines) * gradients / shards
    kept = gradients if several > 1 or strategy == "ddp" else gradients / shards
    compute = model.flops / gpus / (PEAK * MFU)
    return Cost(
        weights, kept, 2 * FP32 * model.trained / shards, model.activations, sent, between, compute
    )


def seconds(one: Cost, gpus: int, strategy: str, network: float) -> float:
    """What sending takes, if nothing of it hides behind the arithmetic. A ring through several
    machines is as fast as its slowest link: all that a GPU sends passes each machine's border once.
    """
    if gpus <= PER_MACHINE:
        return one.inside / NVLINK
    if strategy == "hybrid":  # its eight GPUs share the machine's network
        return one.inside / NVLINK + one.between * PER_MACHINE / network
    return one.inside / min(NVLINK, network)


def gigabytes(number: float) -> str:
    """Gigabytes of 10⁹ bytes."""
    value = number / 1e9
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def show_seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def table(model: Model) -> str:
    """One row a number of GPUs and strategy."""
    lines = [
        f"{model.title}: {model.parameters:,} parameters, {model.trained:,} train; "
        f"{model.rows:,} rows of {model.tokens:,} tokens a step, {model.micro_batch} at a time; "
        f"activations {gigabytes(model.activations)} GB"
        f"{', with checkpointing' if model.checkpointing else ''}.",
        "",
        "| GPUs | strategy | weights | gradients | optimizer | in all, GB | sends, GB "
        "| computes, s | sends by NVLink, s | by NDR, s | by 100 GbE, s |",
        "| --: | :-- | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for gpus in GPUS:
        for strategy in STRATEGIES:
            if strategy == "hybrid" and gpus <= PER_MACHINE:
                continue  # the same as full
            one = cost(model, strategy, gpus)
            held = gigabytes(one.held) + (" ✘" if one.held > HOLDS else "")
            links = [show_seconds(seconds(one, gpus, strategy, rate)) for rate in NETWORKS.values()]
            links = [links[0], "–", "–"] if gpus <= PER_MACHINE else ["–", *links]
            parts = (one.weights, one.gradients, one.optimizer)
            sent = gigabytes(one.inside) + (f" + {gigabytes(one.between)}" if one.between else "")
            lines.append(
                f"| {gpus} | {strategy} | {' | '.join(map(gigabytes, parts))} | {held} | {sent} "
                f"| {show_seconds(one.compute)} | {' | '.join(links)} |"
            )
    return "\n".join(lines)


def put(page: str) -> str:
    """The page with each table between its marks. Raises ValueError where they are missing."""
    for name, model in MODELS.items():
        start = START.format(name)
        if start not in page:
            raise ValueError(f"docs/scale.md has no {start}: the table goes between it and {END}")
        before, _, rest = page.partition(start)
        _, _, after = rest.partition(END)
        page = f"{before}{start}\n{table(model)}\n{END}{after}"
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale.md")
    options = parser.parse_args()
    path = Path(ROOT) / "docs/scale.md"
    if options.write:
        save_text(path, put(path.read_text(encoding="utf-8")))
    else:
        print("\n\n".join(table(model) for model in MODELS.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
