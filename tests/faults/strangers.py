"""Folders, tables and recipes as somebody who means harm would write them: what all of them need.

Each case is a function of a place (conftest.py) that makes it hostile. What must never be read lies
in outside/, and all code in it holds the word "stranger".
"""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from files.verify import sha256
from tests.edits import edit

CODE = "# stranger\nimport os\nopen('pwned', 'w').close()\nclass Head: pass\n"


class Payload:
    """What a pickle would run."""

    def __reduce__(self):
        return (os.system, ("touch pwned",))


def plant_outside(place: Path) -> Path:
    """outside/: files that a name in a stranger's folder may point to."""
    outside = place / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret.json").write_text('{"model_type": "bert", "k": "secret"}', encoding="utf-8")
    (outside / "evil.py").write_text(CODE, encoding="utf-8")
    (outside / "evil.bin").write_bytes(pickle.dumps(Payload()))
    shutil.copy(place / "base" / "model.safetensors", outside / "evil.safetensors")
    shutil.copy(place / "base" / "tokenizer.json", outside / "tokenizer.json")
    return outside


def reseal(run: Path) -> None:
    """Make all lists of a run's files true again, as somebody would who rewrites it whole."""
    model = run / "model"
    manifest, record = model / "manifest.json", model / "openloop.json"

    def entries() -> dict[str, Path]:
        files = (p for p in model.rglob("*") if p.is_file() and p != manifest)
        return {p.relative_to(model).as_posix(): p for p in files}

    try:
        listed = {n: sha256(p) for n, p in entries().items() if p != record}
        edit(record, files=listed)
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass  # it is no object any more
    sizes = {n: {"bytes": p.stat().st_size, "sha256": sha256(p)} for n, p in entries().items()}
    manifest.write_text(json.dumps({"files": sizes}), encoding="utf-8")
    names = ("config.toml", "environment.json", "data.json", "model/manifest.json")
    edit(run / "result.json", files={n: sha256(run / n) for n in names if (run / n).is_file()})


def link(path: Path, target: str) -> None:
    if path.exists():
        path.unlink()
    path.symlink_to(target)


Harm = Callable[[Path], None]
Cases = dict[str, Harm]


TEXTS = {
    "empty": b"",
    "a list": b"[]",
    "a text": b'"bert"',
    "null": b"null",
    "infinite": b'{"model_type": "bert", "hidden_size": Infinity}',
    "not UTF-8": b'{"model_type": "b\xff\xfert"}',
    "nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "lists 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "controls in a key": (
        b'{"model_type": "bert", "\\u001b[31m": 1, "\\u202e": 2, '
        b'"hidden_size": "\\u001b]0;x\\u0007"}'
    ),
    "128 MB": b'{"a": "' + b"x" * (128 << 20) + b'"}',
}  # fmt: skip


def header(entries: dict[str, Any], data: bytes = b"\0" * 64, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


WEIGHTS: dict[str, bytes] = {
    "empty": b"",
    "a header of 2^63 bytes": header({}, length=2**63),
    "a header of 90 MB that is not there": header({}, length=90 << 20),
    "a shape of 2^60": header({"embeddings.word_embeddings.weight": tensor([2**60], 0, 64)}),
    "a shape that overflows": header({"x": tensor([2**33, 2**33], 0, 64)}),
    "offsets beyond the file": header({"x": tensor([2**20], 0, 2**22)}),
    "offsets backwards": header({"x": tensor([16], 64, 0)}),
    "offsets over each other": header({"x": tensor([16], 0, 64), "y": tensor([16], 0, 64)}),
    "an unknown type": header({"x": tensor([16], 0, 64, "EVIL")}),
    "no tensors": header({}, b""),
    "controls in a name": header({"\x1b[31m\u202e": tensor([16], 0, 64)}),
    "a nested header": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "a pickle": pickle.dumps(Payload()),
    "other shapes": header({"embeddings.word_embeddings.weight": tensor([4, 4], 0, 64)}),
    "whole numbers": header({"embeddings.LayerNorm.weight": tensor([8], 0, 64, "I64")}),
    "a million names": header({f"n{i}": tensor([0], 0, 0) for i in range(200_000)}, b""),
}
