"""What the user says of a model that is exported, and nobody guesses. Nothing heavy is imported."""

import difflib
import re
from dataclasses import dataclass

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
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"  # of a user, a model, or rows


@dataclass(frozen=True)
class Words:
    """What the user says of a model, and nobody guesses."""

    license: str | None = None
    languages: tuple[str, ...] = ()
    base_model: str | None = None
    dataset: str | None = None
    repo: str | None = None


def check_license(name: str) -> str:
    """A licence in the hub's words. Raises ValueError for one that is none of them."""
    word = name.strip().lower()
    if word not in LICENSES:
        near = nearest_license(word)
        like = f" (did you mean {near}?)" if near else ""
        raise ValueError(
            f"--license {name!r} is none that the hub knows{like}; what is not on its list is "
            "called other"
        )
    return word


def nearest_license(word: str) -> str | None:
    """The licence that a word is nearest to, as people shorten them: apache2 is apache-2.0."""
    short = {re.sub(r"\.0$|[^a-z0-9.]", "", name): name for name in LICENSES if name != "other"}
    word = re.sub(r"\.0$|[^a-z0-9.]", "", word)
    close = difflib.get_close_matches(word, short, n=1, cutoff=0.6)
    return short[close[0]] if close else None


def check_repo(name: str) -> str:
    """USER/NAME. Raises ValueError for what no hub would call a model."""
    if "/" not in name or not is_name(name):
        raise ValueError(
            f"--push {name!r}: expected USER/NAME, each of up to 96 letters, digits and . _ - "
            "without -- or .., and with none of . - at its ends"
        )
    return name


def check_name(option: str, name: str) -> str:
    """NAME or USER/NAME of something that lies on the hub. Raises ValueError for what cannot be, as
    a folder of this machine."""
    if not is_name(name):
        raise ValueError(
            f"{option} {name!r}: expected what the hub calls it, NAME or USER/NAME; it goes into "
            "the card"
        )
    return name


def is_on_hub(place: str) -> bool:
    """Whether the place that a card names is USER/NAME on the hub, not a folder."""
    return place.count("/") == 1


def is_name(name: str) -> bool:
    """Whether a hub might call something so."""
    return (
        re.fullmatch(f"(?:{NAME}/)?{NAME}", name) is not None
        and not any(part in name for part in ("--", ".."))
        and not name.endswith(".git")
    )
