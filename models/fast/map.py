"""What runs instead of what: every fast path is a row of one table.

speed.py takes a run's replacements from it, and `python -m models.fast.map` writes it between the
markers of docs/how-it-works.md.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from models.fast import decoder
from models.fast.cpu.attention import attend, turn_and_attend
from models.fast.cpu.dropout import FastDropout
from models.fast.cpu.gated import gated_down
from models.fast.cpu.gelu import FastGELU
from models.fast.cpu.native import NativeKernels
from models.fast.cpu.norm import add_norm
from models.fast.cpu.pre_norm import pre_norm
from models.fast.cuda.attention import attend_varlen
from models.fast.cuda.compiled import compile_parts
from models.fast.cuda.lean_sdpa import mask_without_asking
from models.fast.encoder import attend_within, encoder_forward, layer_forward
from models.fast.frozen import freeze_in
from models.fast.linear import product_forward, project
from models.fast.streams import stream_forward

DOC = Path(__file__).parents[2] / "docs" / "how-it-works.md"
BEGIN = "<!-- fast paths: written by python -m models.fast.map, do not edit -->"
END = "<!-- end of fast paths -->"
CPU, CUDA, ANY = "CPU", "CUDA", "CPU, CUDA"
DECODER = ("norm", "qkv", "rotary", "gate", "gelu")
ENCODER = ("norm", "qkv", "last_layer", "compile")


@dataclass(frozen=True)
class FastPath:
    """A plain thing, the function or class that runs instead, and the keys of [speed] that put it
    there: one of them is enough."""

    plain: str
    by: Callable[..., Any]
    switches: tuple[str, ...]
    device: str

    @property
    def file(self) -> str:
        """Where `by` is written."""
        return self.by.__module__.replace(".", "/") + ".py"


PATHS = {
    "lora": FastPath("LoRA layers", product_forward, ("lora",), ANY),
    "frozen": FastPath(
        "the cast of frozen linear weights at each forward", freeze_in, ("frozen",), ANY
    ),
    "lean_sdpa": FastPath(
        "transformers' mask function for SDPA", mask_without_asking, ("attention",), CUDA
    ),
    "linear": FastPath("linear layers without LoRA", product_forward, ("linear",), CPU),
    "few": FastPath(
        "products of few rows (up to 64 or 128), where no gradient is asked for",
        NativeKernels.multiply_few,
        ("linear",),
        CPU,
    ),
    "dropout": FastPath("`nn.Dropout`", FastDropout, ("dropout",), CPU),
    "gelu": FastPath("GELU between two linear layers", FastGELU, ("gelu",), CPU),
    "attention": FastPath("transformers' SDPA", attend, ("attention",), CPU),
    "unpad": FastPath("the backbone, on padded batches", stream_forward, ("unpad",), ANY),
    "encoder": FastPath("the encoder of BERT and its kin", encoder_forward, ENCODER, ANY),
    "layers": FastPath("its layers", layer_forward, ENCODER, ANY),
    "norm": FastPath("dropout, residual and layer norm in them", add_norm, ("norm",), CPU),
    "qkv": FastPath(
        "query, key and value in layers, gate and up in decoders", project, ("qkv",), ANY
    ),
    "last_layer": FastPath(
        "the last one, where the head reads first tokens alone", attend_within, ("last_layer",), ANY
    ),
    "decoder": FastPath("a decoder, on streams", decoder.run_decoder, DECODER, CPU),
    "decoder_layers": FastPath("its layers", decoder.layer_forward, DECODER, CPU),
    "pre_norm": FastPath("residual and norm in them", pre_norm, ("norm",), CPU),
    "rotary": FastPath("rotary positions in them", turn_and_attend, ("rotary",), CPU),
    "gate": FastPath("`down(silu(gate) * up)` in them", gated_down, ("gate",), CPU),
    "gelu_down": FastPath("GELU and the product behind it in GPT-2", gated_down, ("gelu",), CPU),
    "varlen": FastPath("transformers' SDPA", attend_varlen, ("attention",), CUDA),
    "compile": FastPath(
        "what stands before and after attention in them", compile_parts, ("compile",), CUDA
    ),
}


@dataclass(frozen=True)
class Replacement:
    """What a path replaced in one model: "BertLayer x6" by "layer_forward", written in `file`."""

    module: str
    by: str
    file: str
    switch: str


def replacement(path: str, modules: Iterable[nn.Module]) -> Replacement:
    """What the path of that name replaced, given the modules that it stands in for."""
    counts = Counter(type(module).__name__ for module in modules)
    module = ", ".join(name if n == 1 else f"{name} x{n}" for name, n in counts.items())
    row = PATHS[path]
    return Replacement(module, row.by.__name__, row.file, "speed." + "/".join(row.switches))


def render_table() -> str:
    """The table in Markdown, a row a path."""
    lines = ["| plain | runs instead | file | switch | device |", "|:--|:--|:--|:--|:--|"]
    for row in PATHS.values():
        switches = " or ".join(f"`speed.{switch}`" for switch in row.switches)
        lines.append(
            f"| {row.plain} | `{row.by.__name__}` | `{row.file}` | {switches} | {row.device} |"
        )
    return "\n".join(lines)


def render_doc(text: str) -> str:
    """The document with the part between its markers replaced. ValueError if one is missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{DOC.name}: expected one line {BEGIN!r} and one {END!r}")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{render_table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    DOC.write_text(render_doc(DOC.read_text(encoding="utf-8")), encoding="utf-8")
