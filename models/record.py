"""openloop.json: what a model folder says about itself."""

import json
from pathlib import Path
from typing import Any

from files.read import read_json
from files.verify import sha256
from models.args import ModelArgs, args_from_json, args_to_json
from models.heads import head_file
from models.texts import Texts
from models.verified import RECORD, check_digests

FORMAT = 1
HEAD_CODE = "head_code.py"  # the copy of a user's own head file, beside the weights it made


def head_code(kind: str) -> dict[str, str] | None:
    """Class name and sha256 of the user's own head file; None for a head of ours."""
    file = head_file(kind)
    if file is None:
        return None
    return {"class": kind.rpartition(":")[2], "sha256": sha256(file)}


def write_record(
    folder: Path, args: ModelArgs, base: dict[str, Any], texts: Texts | None = None
) -> None:
    """Describe a complete model folder: arguments, base with its hash, how it takes its `texts`,
    hashes of what it holds."""
    own = head_file(args.head_kind)
    kind = f"{folder / HEAD_CODE}:{args.head_kind.rpartition(':')[2]}" if own else args.head_kind
    held = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    record = {
        "format": FORMAT,
        "model": args_to_json(args),
        "base": base,
        "texts": None if texts is None else texts.as_dict(),
        "head_code": head_code(kind),
        "files": {file.relative_to(folder).as_posix(): sha256(file) for file in held},
    }
    (folder / RECORD).write_text(
        json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def read_record(folder: str | Path) -> dict[str, Any]:
    """A model folder's record. Raises ValueError if there is none, or none that this version wrote
    or can read."""
    path = Path(folder) / RECORD
    if not path.exists():
        raise ValueError(f"{folder} is not the model folder of a run: it has no {RECORD}")
    record = read_json(path, ["format", "model", "base", "head_code", "files"])
    if record["format"] != FORMAT:
        raise ValueError(f"{path} has format {record['format']!r}; this version reads {FORMAT}")
    base, code = record["base"], record["head_code"]
    wanted = {"source": str, "revision": str | None, "sha256": str, "in_memory": bool}
    if not isinstance(base, dict) or not all(isinstance(base.get(k), wanted[k]) for k in wanted):
        raise ValueError(f"{path} is damaged: base is {base!r:.200}; expected {', '.join(wanted)}")
    if code is not None and not (isinstance(code, dict) and isinstance(code.get("class"), str)):
        raise ValueError(f"{path} is damaged: head_code is {code!r:.200}")
    check_digests(path, record["files"])
    try:
        args = args_from_json(record["model"])
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return record | {"model": args_to_json(args)}  # in today's words
