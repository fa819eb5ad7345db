"""An export on its way to the hub: what goes, what never does, and what is said of it."""

import os
from dataclasses import dataclass
from pathlib import Path

from files.publish import read_manifest, verify
from files.read import read_json
from job.exporting.place import CARD
from job.folder import Folder, finished_config
from models.record import read_record
from report.format import align_table, format_bytes, join_names
from report.parity import count_words


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
    the user's home or the current folder."""
    verify(folder)
    names = sorted(read_manifest(folder))
    refuse_places(folder, names, [run, *sources(Folder(run))])
    words = [name for name in names if not name.startswith(("tokenizer", "vocab", "merges"))]
    refuse_places(folder, words, [Path.home(), Path.cwd()])  # which may be a word: /tmp
    sizes = {name: (folder / name).stat().st_size for name in names}
    return Parcel(folder, repo, sizes)


def refuse_places(folder: Path, names: list[str], places: list[Path]) -> None:
    """Raise ValueError, naming the first file that holds one of these paths."""
    whole = {path for place in places for path in (place.absolute(), place.resolve())}
    needles = sorted(os.fsencode(path) for path in whole if len(path.parts) > 1)  # not "/" itself
    for name in names:
        content = (folder / name).read_bytes()
        for needle in needles:
            if needle in content:
                raise ValueError(
                    f"{name} holds a place on this machine, {os.fsdecode(needle)}: it is not sent. "
                    "Where it is the base of an adapter, name the hub's with --base-model"
                )


def sources(folder: Folder) -> list[Path]:
    """Where on this machine the rows and the base of a run lie, as its records name them."""
    config, base = finished_config(folder), read_record(folder.model)["base"]
    names = [str(config.data.source), config.model.source, str(base.get("source"))]
    adapter = folder.model / "adapter_config.json"
    if adapter.is_file():
        names.append(str(read_json(adapter).get("base_model_name_or_path")))
    paths = [Path(name.removeprefix("run:")).expanduser() for name in names]
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
