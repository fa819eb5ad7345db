"""openloop.json: what a model folder says about itself."""

import json
from pathlib import Path
from typing import Any

from files.read import read_json
from files.verify import sha256
from models.args import ModelArgs, args_from_json, args_to_json
from models.code import HEAD_CODE, METHOD_CODE, code_file, describe_code
from models.texts import Texts
from models.verified import RECORD, check_digests

FORMAT = 1


def write_record(
    folder: Path, args: ModelArgs, base: dict[str, Any], texts: Texts | None = None
) -> None:
    """Describe a complete model folder: arguments, base with its hash, how it takes its `texts`,
    hashes of what it holds."""
    held = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    record = {
        "format": FORMAT,
        "model": args_to_json(args),
        "base": base,
        "texts": None if texts is None else texts.as_dict(),
        "head_code": describe_code(copied(args.head_kind, folder, HEAD_CODE)),
        "method_code": describe_code(copied(args.method_code, folder, METHOD_CODE)),
        "files": {file.relative_to(folder).as_posix(): sha256(file) for file in held},
    }
    (folder / RECORD).write_text(
        json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def copied(name: str | None, folder: Path, copy: str) -> str | None:
    """A user's own class by the copy of its file in a model folder; a name of ours as it is."""
    own = name is not None and code_file(name) is not None
    return f"{folder / copy}:{str(name).rpartition(':')[2]}" if own else name


def read_record(folder: str | Path) -> dict[str, Any]:
    """A model folder's record. Raises ValueError if there is none, or none that this version wrote
    or can read."""
    path = Path(folder) / RECORD
    if not path.exists():
        raise ValueError(f"{folder} is not the model folder of a run: it has no {RECORD}")
    record = read_json(path, ["format", "model", "base", "head_code", "files"])
    if record["format"] != FORMAT:
        raise ValueError(f"{path} has format {record['format']!r}; this version reads {FORMAT}")
    base, codes = record["base"], {key: record.get(key) for key in ("head_code", "method_code")}
    wanted = {"source": str, "revision": str | None, "sha256": str, "in_memory": bool}
    if not isinstance(base, dict) or not all(isinstance(base.get(k), wanted[k]) for k in wanted):
        raise ValueError(f"{path} is damaged: base is {base!r:.200}; expected {', '.join(wanted)}")
    for key, code in codes.items():  # records from before methods had code of their own have one
        if code is not None and not (isinstance(code, dict) and isinstance(code.get("class"), str)):
            raise ValueError(f"{path} is damaged: {key} is {code!r:.200}")
    check_digests(path, record["files"])
    try:
        args = args_from_json(record["model"])
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return record | {"model": args_to_json(args)}  # in today's words
