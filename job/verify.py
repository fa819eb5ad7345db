"""Whether a finished run is still what it was when its training ended. Nothing here loads torch.

result.json, written last, lists the files that decide what the run answers, by their sha256: its
settings, what it was made with, and the manifest of model/, which lists all files there. Its own
digest stands in it. Whoever edits one of them by accident is told; somebody who rewrites all of
them is not found out by this.
"""

import hashlib
import json
from typing import Any

from files.publish import MANIFEST
from files.verify import differences, sha256
from files.write import to_json
from job.folder import Folder, check_finished
from models.verified import check_digests, folder_differences

DECISIVE = ("config.toml", "environment.json", "data.json", f"model/{MANIFEST}")


def list_files(folder: Folder) -> dict[str, str]:
    """Name -> sha256 of what decides the answers of a run whose model is published."""
    return {name: sha256(folder.path / name) for name in DECISIVE}


def seal(result: dict[str, Any]) -> dict[str, Any]:
    """What result.json holds, with the sha256 of it all."""
    return result | {"sha256": digest(json.loads(to_json(result)))}


def digest(values: dict[str, Any]) -> str:
    """sha256 of JSON values, whatever the order of their keys."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_result(folder: Folder) -> dict[str, Any]:
    """A finished run's result.json. Raises ValueError where it is not what was written."""
    result = folder.read_json("result.json", "weights", "progress", "test")
    sealed = result.pop("sha256", None)  # not every run has one
    if sealed is not None and sealed != digest(result):
        raise ValueError(f"{folder.result} was changed since the training ended (sha256 differs)")
    return result


def check_run(folder: Folder, allow_drift: bool) -> list[str]:
    """Compare a finished run with its own lists; what to say of it.

    Raises ValueError where it is no finished run, and with every difference in one message, unless
    `allow_drift` goes on with the files as they are.
    """
    check_finished(folder)
    lines, notes = [], []
    try:
        result = read_result(folder)
        if "files" in result:
            lines += differences(folder.path, check_digests(folder.result, result["files"]))
        else:
            notes.append(
                f"{folder.path} was trained before a run listed its files: those in model/ were "
                "verified, its settings could not be"
            )
    except ValueError as error:
        lines.append(str(error))
    lines += folder_differences(folder.model)
    if lines and not allow_drift:
        shown = "\n".join("  " + line for line in lines)
        raise ValueError(
            f"{folder.path} is not as it was when its training ended, and may answer otherwise:\n"
            f"{shown}\nRestore it (train.py with --resume mends config.toml, result.json) or go "
            "on with it as it is with --allow-drift (in Python load_run(..., allow_drift=True))."
        )
    return notes + [f"going on although {line}" for line in lines]
