"""Where the base of a run's adapter is: weights that the run names and does not hold."""

from pathlib import Path
from typing import Any

from models.foreign import check_model_folder, weight_files
from models.load import hash_weights
from models.record import read_record
from models.resolve import resolve_source
from models.verified import RECORD

MOST_BASES = 16  # runs on top of each other


def find_base(
    folder: str | Path, record: dict[str, Any], path: str | Path | None, allow_network: bool
) -> tuple[str, str]:
    """(folder, sha256) of the weights that an exported folder is built on, by its record; `path` is
    where a person says they are. A folder that holds all it needs is its own base, and the hash,
    which was checked with the folder, is empty. A hub is asked only with `allow_network`; what was
    fetched from it once is found without.

    Raises ValueError where they are gone, are other weights by their hash, or `path` is not needed.
    """
    base = record["base"]
    if record["model"]["method"] is None or base["in_memory"]:
        if path is not None:
            raise ValueError(
                f"{folder} holds all its weights and has no base elsewhere; leave out --base {path}"
            )
        here = folder if record["model"]["method"] is None else Path(folder) / "base"
        return str(here), ""
    source, revision = base["source"], base["revision"]
    if path is not None:
        source, revision = _as_given(str(path), source), None
    way_out = (
        f"{folder} holds an adapter alone; its base was {base['source']!r}"
        + (f" (revision {base['revision']})" if base["revision"] else "")
        + f", weights with sha256 {base['sha256']}. Put it back, or say where it is now: "
        "--base PATH, in Python load_run(..., base=PATH)"
    )
    if source.startswith("hub:") and not allow_network:
        way_out += (
            ". It is looked for on this machine alone; --allow-network, in Python "
            "allow_network=True, lets it be fetched"
        )
    try:
        there = resolve_source(source, revision, allow_network)
        check_model_folder(there)
        sha256 = hash_weights(there)
    except ValueError as error:
        raise ValueError(
            f"the base of this run's adapter is not there: {error}.\n{way_out}"
        ) from None
    if sha256 != base["sha256"]:
        raise ValueError(
            f"{source!r}, as the base of this run's adapter, is not the one it was trained on: its "
            f"weights have sha256 {sha256}.\n{way_out}"
        )
    return there, sha256


def weight_bytes(folder: str | Path) -> int:
    """Bytes of all weights that a model folder needs, those of an adapter's base included."""
    folder = Path(folder)
    if not (folder / RECORD).exists():
        return sum(file.stat().st_size for file in weight_files(folder))
    record = read_record(folder)
    files = [*folder.rglob("*.safetensors"), *folder.rglob("*.npz")]  # of a bag of n-grams
    own = sum(file.stat().st_size for file in files)
    if record["model"]["method"] is None or record["base"]["in_memory"]:
        return own
    return own + weight_bytes(find_base(folder, record, None, False)[0])


def check_chain(folder: str | Path) -> None:
    """Raises ValueError where a run's base, or that one's base, is the run itself again."""
    seen: list[Path] = []
    while (Path(folder) / RECORD).exists():
        here = Path(folder).resolve()
        if here in seen or len(seen) == MOST_BASES:
            ring = " -> ".join(map(str, [*seen, here]))
            what = "stands on itself" if here in seen else f"has more than {MOST_BASES} bases"
            raise ValueError(f"a run's model {what}, by the base in each {RECORD}: {ring}")
        seen.append(here)
        record = read_record(folder)
        if record["model"]["method"] is None or record["base"]["in_memory"]:
            return
        try:
            folder = resolve_source(record["base"]["source"], record["base"]["revision"], False)
        except ValueError:
            return  # gone or moved: said where it is needed


def _as_given(path: str, before: str) -> str:
    """A base that was a run's model may be named by the run's folder."""
    if before.startswith("run:") and (Path(path).expanduser() / "model").is_dir():
        return f"run:{path}"
    return path
