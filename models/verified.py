"""Whether a model folder is the one that was exported: every file that loading may open is listed
with its sha256, in the manifest that was written with it, or in its openloop.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from files.publish import MANIFEST, read_manifest
from files.read import read_json
from files.verify import differences
from models.foreign import readable_files

RECORD = "openloop.json"


def listed_files(folder: Path) -> dict[str, str]:
    """Name -> sha256 of a model folder's files. Raises ValueError where it has no readable list."""
    if (folder / MANIFEST).exists():
        return {name: digest for name, (_, digest) in read_manifest(folder).items()}
    return check_digests(folder / RECORD, read_json(folder / RECORD, ["files"])["files"])


def check_digests(path: Path, files: Any) -> dict[str, str]:
    """The names and digests in a JSON file at `path`. Raises ValueError where they are none."""
    if not isinstance(files, Mapping) or not all(isinstance(v, str) for v in files.values()):
        raise ValueError(f"{path} is damaged: its list of files is none")
    return dict(files)


def folder_differences(folder: str | Path) -> list[str]:
    """A line for each of a model folder's files that is not as it was exported, added ones too."""
    folder = Path(folder)
    try:
        listed = listed_files(folder)
    except ValueError as error:
        return [str(error)]
    known = {*listed, MANIFEST, RECORD}  # the two at the top alone: base/ and bag/ have none
    homes = [home for home in (folder, folder / "base", folder / "bag") if home.is_dir()]
    there = [path for home in homes for path in readable_files(home) if not path.is_dir()]
    names = [path.relative_to(folder).as_posix() for path in there]
    added = [name for name in names if name not in known]
    return [
        *differences(folder, listed),
        *(f"{folder}: {name} was added, and loading would read it" for name in added),
    ]


def check_exported(folder: str | Path) -> None:
    """Raises ValueError with all that is not as it was exported."""
    if lines := folder_differences(folder):
        shown = "\n".join("  " + line for line in lines)
        raise ValueError(
            f"{folder} is not as it was exported; take it from its run again:\n{shown}"
        )
