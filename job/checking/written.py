"""The files that an examination writes: never over what it reads, never without what was there."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from configs.schema import Config
from data.sources import find_files
from files.publish import free_name
from files.write import place_fault, replace_text


def check_out(path: Path, config: Config, inputs: Sequence[Path | None] = ()) -> None:
    """Raise ValueError, before anything is worked out, where `path` cannot be written, and where it
    is one of the `inputs` or holds rows of data.source."""
    if fault := place_fault(path):
        raise ValueError(f"--out: {fault}")
    for held in (*(one for one in inputs if one is not None), *_sources(config)):
        if path.exists() and held.exists() and path.samefile(held):
            raise ValueError(f"--out: {path} is what is read here; name another file")


def _sources(config: Config) -> Iterator[Path]:
    """The files that data.source names; none of what is not there, which its reader says."""
    source = config.data.source
    for names in source.values() if isinstance(source, dict) else [source]:
        for name in [names] if isinstance(names, str) else names:
            if not name.startswith("hub:"):
                with suppress(ValueError):
                    yield from find_files(name)


def write_lines(path: Path, lines: Sequence[str]) -> Path | None:
    """Write the lines. What was there, and a person may have edited, is kept as NAME.old, or where
    that is there as NAME.old-1 …; its path where that was so."""
    old = None
    text = "".join(f"{line}\n" for line in lines)
    if path.exists() and path.read_bytes() != text.encode("utf-8"):
        old = path.with_name(f"{path.name}.old")
        old = free_name(path, "old") if os.path.lexists(old) else old
        path.replace(old)
    with replace_text(path) as file:
        file.write(text)
    return old
