"""Where the base of a run's adapter is: weights that the run names and does not hold."""

from pathlib import Path
from typing import Any

from models.load import hash_weights, resolve_source


def find_base(
    folder: str | Path, record: dict[str, Any], path: str | Path | None
) -> tuple[str, str | None, str | None]:
    """(source, revision, sha256) of the weights that an exported folder is built on, by its record;
    `path` is where a person says they are. A folder that holds all it needs is its own base, and
    the hash, which was checked with the folder, is None.

    Raises ValueError where they are gone, are other weights by their hash, or `path` is not needed.
    """
    base = record["base"]
    if record["model"]["lora"] is None or base["in_memory"]:
        if path is not None:
            raise ValueError(
                f"{folder} holds all its weights and has no base elsewhere; leave out --base {path}"
            )
        here = folder if record["model"]["lora"] is None else Path(folder) / "base"
        return str(here), None, None
    source, revision = base["source"], base["revision"]
    if path is not None:
        source, revision = _as_given(str(path), source), None
    way_out = (
        f"{folder} holds an adapter alone; its base was {base['source']!r}"
        + (f" (revision {base['revision']})" if base["revision"] else "")
        + f", weights with sha256 {base['sha256']}. Put it back, or say where it is now: "
        "--base PATH, in Python load_run(..., base=PATH)"
    )
    try:
        sha256 = hash_weights(resolve_source(source, revision))
    except ValueError as error:
        raise ValueError(
            f"the base of this run's adapter is not there: {error}.\n{way_out}"
        ) from None
    if sha256 != base["sha256"]:
        raise ValueError(
            f"{source!r}, as the base of this run's adapter, is not the one it was trained on: its "
            f"weights have sha256 {sha256}.\n{way_out}"
        )
    return source, revision, sha256


def _as_given(path: str, before: str) -> str:
    """A base that was a run's model may be named by the run's folder."""
    if before.startswith("run:") and (Path(path).expanduser() / "model").is_dir():
        return f"run:{path}"
    return path
