"""What a run costs on many GPUs, worked out on paper: memory, bytes and seconds a step.

    python benchmarks/scale_cost.py            prints the tables
    python benchmarks/scale_cost.py --write    puts them into docs/scale.md

The arithmetic is that of engine/ways.py, which the plan of a run uses too.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from child import ROOT  # makes the project importable

from engine.ways import Processes, Sizes, Way, held, sent
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


def sizes_of(model: Model) -> Sizes:
    """Bytes: what trains in fp32, which autocast casts where it multiplies; what is frozen in
    bf16."""
    frozen = BF16 * model.parameters if model.rank else 0
    layer = (BF16 if model.rank else FP32) * model.layer
    trained = FP32 * model.trained
    block = layer + (trained // model.layers if model.rank else 0)
    outside = frozen + trained - model.layers * block
    return Sizes(frozen, trained, block, outside, 0, int(model.activations))


def cost(model: Model, strategy: str, gpus: int) -> Cost:
    """Of one of STRATEGIES, by the arithmetic of engine/ways.py."""
    way = Way("ddp") if strategy == "ddp" else Way("fsdp", strategy)
    micro_batches, sizes = model.rows // model.micro_batch, sizes_of(model)
    machine = min(gpus, PER_MACHINE)
    one = held(sizes, way, Processes(gpus, machine), micro_batches)
    inside = whole = sent(sizes, way, Processes(gpus, machine), micro_batches)
    if strategy == "hybrid":  # as many micro-batches a GPU, on one machine
        inside = sent(sizes, way, Processes(machine, machine), micro_batches * machine // gpus)
    return Cost(
        one.weights + one.gathered, one.gradients, one.optimizer, one.activations, inside,
        whole - inside, model.flops / gpus / (PEAK * MFU),
    )  # fmt: skip


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
