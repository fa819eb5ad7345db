"""An export on its way to the hub: what goes, what never does, and what is said of it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from files.publish import read_manifest, verify
from files.read import read_json
from job.exporting.card import CARD
from job.folder import Folder, finished_config
from models.record import read_record
from report.format import align_table, format_bytes, join_names
from report.parity import count_words

LICENSES = (  # those of the hub's list by which somebody may do something
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m",
    "bigscience-bloom-rail-1.0", "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0",
    "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0",
    "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0",
    "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl",
    "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "h-research", "intel-research",
    "lppl-1.3c", "ms-pl", "apple-ascl", "apple-amlr", "mpl-2.0", "odc-by", "odbl",
    "openmdw-1.0", "openmdw-1.1", "openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa",
    "unlicense", "zlib", "pddl", "lgpl-lr", "deepfloyd-if-license",
    "fair-noncommercial-research-license", "llama2", "llama3", "llama3.1", "llama3.2",
    "llama3.3", "llama4", "grok2-community", "gemma", "other",
)  # fmt: skip
NAME = r"[A-Za-z0-9][\w.-]{0,95}"  # of a user, or a model


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


def check_license(name: str) -> str:
    """A licence in the hub's words. Raises ValueError for one that is none of them."""
    word = name.strip().lower()
    if word not in LICENSES:
        near = [one for one in sorted(LICENSES) if one.startswith(word.split("-")[0])]
        like = f", such as {', '.join(near[:6])}" if near and word else ""
        raise ValueError(
            f"--license {name!r} is none that the hub knows{like}; what is not on its list is "
            "called other"
        )
    return word


def check_repo(name: str) -> str:
    """USER/NAME. Raises ValueError for what no hub would call a model."""
    if not re.fullmatch(f"{NAME}/{NAME}", name):
        raise ValueError(f"--push {name!r}: expected USER/NAME, letters, digits and . _ - in both")
    return name


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
