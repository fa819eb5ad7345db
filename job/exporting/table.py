"""The table of formats: a row each, by the word that --to takes. Importing it loads little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.exporting.formats.gguf import Gguf, Gguf8
from job.exporting.formats.onnx import Onnx, OnnxInt8
from job.exporting.formats.peft import Peft
from job.exporting.formats.sentence_transformers import SentenceTransformers
from job.exporting.formats.transformers import Transformers

if TYPE_CHECKING:
    from job.exporting.format import Format, Source

FORMATS: dict[str, Format] = {
    "transformers": Transformers(),
    "sentence-transformers": SentenceTransformers(),
    "peft": Peft(),
    "onnx": Onnx(),
    "onnx-int8": OnnxInt8(),
    "gguf": Gguf(),
    "gguf-q8": Gguf8(),
}


def best_format(source: Source) -> str:
    """The first of FORMATS that this run can be written in. Raises ValueError where none is."""
    reasons = {name: one.refuses(source) for name, one in FORMATS.items()}
    for name, reason in reasons.items():
        if reason is None:
            return name
    listed = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
    raise ValueError(f"{source.folder.path} can be written in no format:\n{listed}")
