"""An export on its way to the hub: what goes, what never does, and what is said of it."""

import json
import os
import re
import sysconfig
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from files.publish import read_manifest, verify
from files.read import read_json
from job.exporting.place import CARD
from job.extras import HOME
from job.folder import Folder, finished_config
from models.record import read_record
from models.resolve import ADAPTER
from report.format import align_table, format_bytes, join_names
from report.parity import count_words

PACKAGES = Path(sysconfig.get_path("purelib"))
VOCABULARY = ("tokenizer.json", "vocab", "merges")  # whose words may be any


@dataclass(frozen=True)
class Parcel:
    """What goes to `repo`: names of files of `folder`, and how large each is."""

    folder: Path
    repo: str
    files: dict[str, int]

    def lines(self) -> list[str]:
        """A line for each file, and what they are together."""
        rows = [[name, format_bytes(size)] for name, size in self.files.items()]
        together = format_bytes(sum(self.files.values()))
        return [
            f"{self.repo}: {count_words(len(self.files), 'file')}, {together}",
            *(f"  {line}" for line in align_table(rows, right=[1])),
        ]

    def front_matter(self) -> str:
        """What the hub reads at the top of the card."""
        text = (self.folder / CARD).read_text(encoding="utf-8")
        return text[: text.index("\n---\n", 4) + 5]


def pack(folder: Path, repo: str, run: Path) -> Parcel:
    """The files that an export wrote, and nothing that came into its folder since. Raises
    ValueError where one was changed, or names a place on this machine: the run, its rows and base,
    openloop, the packages, the user's home or the current folder."""
    verify(folder)
    names = sorted(read_manifest(folder))
    ours = [run, folder, HOME, PACKAGES, Path.home(), Path.cwd()]
    refuse_places(folder, names, [*ours, *sources(Folder(run), folder)])
    sizes = {name: (folder / name).stat().st_size for name in names}
    return Parcel(folder, repo, sizes)


def refuse_places(folder: Path, names: list[str], places: list[Path]) -> None:
    """Raise ValueError, naming the first file that holds one of these paths, as it is or as JSON
    escapes it. One of a single name, as /root, may be a word: it has to go on, or to end a text."""
    whole = {path for place in places for path in (place.absolute(), place.resolve())}
    for name in names:
        for path in sorted(path for path in whole if len(path.parts) > 1):  # not "/" itself
            short = len(path.parts) == 2
            if short and name.startswith(VOCABULARY):
                continue
            spelt = {os.fsencode(path), json.dumps(str(path))[1:-1].encode()}
            needles = [way + end for way in spelt for end in ((b"/", b'"') if short else (b"",))]
            if any(holds(folder / name, needle) for needle in needles):
                hint = "; name the hub's with --base-model" if name == ADAPTER else ""
                raise ValueError(
                    f"{name} holds a place on this machine, {path}: it is not sent{hint}"
                )


def holds(path: Path, needle: bytes) -> bool:
    """Whether a file has these bytes somewhere, however large it is."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return content.find(needle) >= 0


def sources(folder: Folder, export: Path) -> list[Path]:
    """Where on this machine the rows and the base of a run lie, as its records and those of its
    export name them."""
    config, base = finished_config(folder), read_record(folder.model)["base"]
    rows = config.data.source
    parts = [*rows.values()] if isinstance(rows, dict) else [rows]
    names = [name for part in parts for name in ([part] if isinstance(part, str) else part)]
    names += [config.model.source, str(base.get("source"))]
    for adapter in (folder.model / ADAPTER, export / ADAPTER):
        if adapter.is_file():
            names.append(str(read_json(adapter).get("base_model_name_or_path")))
    plain = [re.split(r"[*?\[]", name)[0] for name in names]  # of a glob what all of it lies in
    paths = [Path(re.sub("^(run|hub):", "", name)).expanduser() for name in plain]
    return [path for path in paths if path.is_absolute()]


def send(parcel: Parcel, private: bool) -> list[str]:
    """Send it; what to say. Raises ValueError, one sentence, where that cannot be."""
    from models.elsewhere.hub import push_folder

    done = push_folder(parcel.folder, [*parcel.files], parcel.repo, private, "Export by openloop")
    if not done.sent:
        lines = [f"nothing has changed: {done.url} has all of it"]
    else:
        lines = [f"sent {count_words(len(done.sent), 'file')}: {done.url}"]
        if done.same:
            lines.append(f"{count_words(len(done.same), 'file')} had not changed")
    if done.others:
        lines.append(f"also there, and left alone: {join_names(done.others)}")
    return lines
