"""openloop.json: what a model folder says about itself, and the check that it is still so."""

import json
from pathlib import Path
from typing import Any

from models.args import ModelArgs, args_to_json
from models.heads import hash_file, head_file

RECORD = "openloop.json"
HEAD_CODE = "head_code.py"  # the copy of a user's own head file, beside the weights it made


def head_code(kind: str) -> dict[str, str] | None:
    """Class name and sha256 of the user's own head file; None for a head of ours."""
    file = head_file(kind)
    if file is None:
        return None
    return {"class": kind.rpartition(":")[2], "sha256": hash_file(file)}


def write_record(folder: Path, args: ModelArgs, base: dict[str, Any]) -> None:
    """Describe a complete model folder: arguments, base with its hash, hashes of what it holds."""
    own = head_file(args.head_kind)
    kind = f"{folder / HEAD_CODE}:{args.head_kind.rpartition(':')[2]}" if own else args.head_kind
    held = sorted([*folder.rglob("*.safetensors"), *folder.glob(HEAD_CODE)])
    record = {
        "format": 1,
        "model": args_to_json(args),
        "base": base,
        "head_code": head_code(kind),
        "files": {file.relative_to(folder).as_posix(): hash_file(file) for file in held},
    }
    (folder / RECORD).write_text(
        json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def read_record(folder: str | Path) -> dict[str, Any]:
    """A model folder's record. Raises ValueError if there is none."""
    path = Path(folder) / RECORD
    if not path.is_file():
        raise ValueError(f"{folder} is not the model folder of a run: it has no {RECORD}")
    return json.loads(path.read_text(encoding="utf-8"))


def check_files(folder: str | Path, record: dict[str, Any]) -> None:
    """Raises ValueError if a file that the record names is missing or not the one exported."""
    for name, sha256 in record["files"].items():
        file = Path(folder) / name
        if not file.is_file() or hash_file(file) != sha256:
            what = "was changed" if file.is_file() else "is missing"
            raise ValueError(f"{file} {what} since the export; take the folder from its run again")
