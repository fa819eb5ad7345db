"""The life of a run folder: new, interrupted, finished. Nothing here loads torch.

runs/<name>/config.toml     the resolved config, as it can be given back to --config
            result.json     written last: its presence means that the run is finished
            checkpoints/    step-00000120/ …
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.read import (
    ConfigError,
    NoTomlError,
    difference,
    parse_config,
    read_config,
    read_toml,
    trajectory,
    write_config,
)
from configs.schema import Config
from engine.storage import step_folder, steps_on_disk
from files.errors import UnreadableError
from files.publish import free_name, set_aside, sweep, verify
from files.read import read_json
from files.write import LEFTOVER, save_text, to_json
from job.reporting.train_on import can_train_on, train_on


@dataclass(frozen=True)
class Folder:
    """The paths inside a run folder."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def predictions(self) -> Path:
        return self.path / "test_predictions.jsonl"

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file of the run, whole or not at all."""
        save_text(self.path / name, to_json(value, indent=1) + "\n")

    def read_json(self, name: str, *keys: str) -> Any:
        """Read one back. Raises ValueError where it is damaged or lacks one of `keys`."""
        return read_json(self.path / name, keys)

    def mend_json(
        self, name: str, value: dict[str, Any], check: Callable[[], Any] | None = None
    ) -> list[str]:
        """Write a file of the run anew where it is damaged, gone, or without a key of `value`, and
        where `check` raises ValueError; what to say of it."""
        try:
            self.read_json(name, *value)
            if check is not None:
                check()
            return []
        except UnreadableError:
            raise
        except ValueError as error:
            self.write_json(name, value)
            return [f"{error}; it is written anew"]

    def recorded(self) -> dict[str, Any]:
        """What the newest whole checkpoint notes of its run; empty where there is none."""
        for step in reversed(steps_on_disk(self.checkpoints)):
            checkpoint = step_folder(self.checkpoints, step)
            try:
                verify(checkpoint)
                return read_json(checkpoint / "state.json", ["record"])["record"]
            except ValueError:
                continue  # whoever resumes sets it aside
        return {}


def run_folder(config: Config) -> Folder:
    """The folder of a run."""
    return Folder(Path(config.run.dir).expanduser() / config.run.name)


def ways_out(config: Config) -> str:
    """What a person can do about a run folder that is in the way."""
    return (
        f"  run.name={config.run.name}_2   train under another name; this run stays\n"
        f"  --fresh   start again; this run is kept beside it as {config.run.name}.old-1; in "
        "Python fresh=True"
    )


def refuse_existing(config: Config, folder: Folder) -> None:
    """Raise ValueError if a start without --resume or --fresh would touch an existing run."""
    if not folder.config.exists():
        return
    state = "a finished run" if folder.result.exists() else "an unfinished run"
    raise ValueError(
        f"{folder.path} holds {state}; it is not touched. Ways out:\n"
        f"  --resume   go on where it stopped (nothing to do where it is finished); in Python "
        "resume=True\n"
        f"{ways_out(config)}"
    )


def damage(path: Path) -> str | None:
    """What is wrong with a run's config.toml that is nobody's edit: it is gone, empty or no TOML.
    None where a person can have written it, with a key that is wrong or not."""
    try:
        return None if read_toml(path) else f"{path} is empty"
    except NoTomlError as error:
        return str(error)


def saved_config(
    folder: Folder, overrides: Sequence[str] = (), unset: Sequence[str] = ()
) -> Config:
    """The config that a run was started with, changed as read_config does it: that of its newest
    checkpoint where config.toml is damaged. Nothing is written. Raises ConfigError where there is
    none, and where a setting in config.toml is wrong."""
    reason = damage(folder.config)
    if reason is None:
        return read_config(folder.config, overrides, unset)
    values = folder.recorded().get("config")
    if values is None:
        raise ConfigError(f"{reason}; no checkpoint that is whole holds the settings either")
    origin = f"the settings of the newest checkpoint of {folder.path}"
    return parse_config(values, origin, overrides, unset)


def read_recipe(path: Path, overrides: Sequence[str], unset: Sequence[str], resume: bool) -> Config:
    """The config of a recipe. Where a run is resumed from its own config.toml, as saved_config."""
    folder = Folder(path.parent)
    if resume and path.name == folder.config.name and folder.checkpoints.is_dir():
        refuse_links(folder)
        return saved_config(folder, overrides, unset)
    return read_config(path, overrides, unset)


def mend_config(folder: Folder, config: Config) -> list[str]:
    """Write `config` where a run's config.toml is damaged, and keep what was there beside it; what
    to say of it."""
    reason = damage(folder.config)
    if reason is None:
        return []
    kept = ""
    if folder.config.exists():
        aside = free_name(folder.config, "damaged")
        shutil.copyfile(folder.config, aside)
        kept = f", what was there is kept as {aside.name}"
    write_config(config, folder.config)
    return [f"{reason}; it is written anew{kept}"]


def refuse_other_trajectory(config: Config, folder: Folder) -> None:
    """Raise ValueError, showing the difference, if resuming would train something else."""
    try:
        saved = saved_config(folder)
    except ConfigError:
        if folder.result.exists() or folder.model.exists() or damage(folder.config) is None:
            raise
        return  # nothing was trained: it begins at step 1, with the config of now
    lines = difference(trajectory(saved), trajectory(config))
    if lines:
        shown = "\n".join("  " + line for line in lines)
        out = ways_out(config)
        if folder.result.exists() and can_train_on(saved):
            epochs = max(1, config.train.epochs - saved.train.epochs)
            command = train_on(folder.config, saved, epochs)
            if config.train.max_steps is not None and saved.train.max_steps is not None:
                steps = config.train.max_steps - saved.train.max_steps
                command += f" train.max_steps={steps}" if steps > 0 else ""
            out += f"\nTo train on from its weights, as a run of its own:\n  {command}"
        raise ValueError(
            f"{folder.path} was trained from another recipe; to resume it the settings below must "
            f"be as they were:\n{shown}\nIt is not touched. Ways out:\n{out}"
        )


def refuse_links(folder: Folder) -> None:
    """Raise ValueError where anything in a run's folder is no file and no folder. A run makes none
    such; through a link of somebody else's it would read, write and remove elsewhere, and a pipe
    may never end."""
    for parent, folders, files in os.walk(folder.path):  # which follows no link
        for path in sorted(Path(parent, name) for name in folders + files):
            if path.is_symlink():
                raise ValueError(
                    f"{path} is a link; a run is read and written in its own folder alone: put "
                    "what it leads to in its place (run.dir can name another disk), or remove it"
                )
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise ValueError(f"{path} is no regular file; remove it")


def refuse_planted(folder: Folder) -> None:
    """Raise ValueError where something stands where a run puts a folder of its own: better before
    the training than after it."""
    for path in (folder.checkpoints, folder.model):
        if os.path.lexists(path) and not path.is_dir():
            raise ValueError(f"{path} is no folder, and the run needs its place; move it away")


def check_folder(config: Config, folder: Folder, resume: bool, fresh: bool) -> None:
    """Raise ValueError where a start would destroy, or mix, what is in the folder already."""
    if folder.path.exists() and not folder.path.is_dir():
        raise ValueError(f"{folder.path} is a file; choose another run.name or run.dir")
    refuse_own_source(config, folder)
    if resume:
        refuse_links(folder)  # before anything in it is read
    is_run = folder.config.exists() or (resume and bool(folder.recorded()))
    if folder.path.exists() and not is_run:
        held = [p for p in folder.path.iterdir() if not LEFTOVER.fullmatch(p.name)]
        if held:
            raise ValueError(
                f"{folder.path} exists and is no run (it has no config.toml); choose another "
                "run.name or run.dir"
            )
    if not fresh:
        refuse_planted(folder)
    if resume and is_run:
        refuse_other_trajectory(config, folder)
    elif not fresh:
        refuse_existing(config, folder)


def refuse_own_source(config: Config, folder: Folder) -> None:
    """Raise ValueError where a run would start from its own model, which --fresh sets aside."""
    source = config.model.source
    path = Path(source.removeprefix("run:")).expanduser()
    own = folder.model.resolve() in (path.resolve(), (path / "model").resolve())
    if own and not source.startswith(("hub:", "package:")):
        raise ValueError(
            f"model.source is {source!r}, which is this run itself ({folder.path}); give this one "
            "a name of its own: run.name=…"
        )


def open_folder(config: Config, folder: Folder, resume: bool, fresh: bool) -> list[str]:
    """Make the folder of a run, which the caller holds, and write its config; what to say of it.

    Raises ValueError as check_folder does: another process may have been there since.
    """
    check_folder(config, folder, resume, fresh)
    notes = []
    if fresh and folder.path.exists():
        notes.append(f"the earlier run is kept as {set_aside(folder.path, 'old')}")
    if resume and (folder.config.exists() or folder.checkpoints.is_dir()):
        notes += mend_config(folder, config)
    folder.path.mkdir(parents=True, exist_ok=True)
    sweep(folder.path)  # it is held: whatever is half-written there was left by a killed process
    write_config(config, folder.config)
    return notes


def check_finished(folder: Folder) -> None:
    """Raise ValueError unless there is a run with a model, naming the finished runs there."""
    refuse_links(folder)
    if not folder.config.exists():
        runs = ", ".join(sorted(p.parent.name for p in folder.path.parent.glob("*/result.json")))
        known = f"finished runs in {folder.path.parent}: {runs}"
        if not runs:
            known = "train one with `python train.py --config configs/imdb_lora.toml`"
        if not folder.path.exists():
            raise ValueError(f"there is no folder {folder.path}; {known}")
        raise ValueError(f"{folder.path} is not a run folder: it has no config.toml; {known}")
    if not folder.model.is_dir():
        finish = f"Finish it with `python train.py --config {folder.config} --resume`."
        raise ValueError(f"{folder.path} has no model yet: its training is not finished. {finish}")


def finished_config(folder: Folder) -> Config:
    """The config of a finished run. Raises ValueError where there is none."""
    check_finished(folder)
    try:
        return read_config(folder.config)
    except ConfigError as error:
        if damage(folder.config) is None:
            raise
        raise ConfigError(
            f"{error}\nIf it is damaged: `python train.py --config {folder.config} --resume` writes"
            " it anew from the run's newest checkpoint"
        ) from None
