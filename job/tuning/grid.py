"""A plain grid: a run in full for each combination of values, one after the other."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.schema import Config
from engine.memory import release_memory
from job.folder import Folder, check_folder, run_folder
from job.tuning.space import change, read_value, split_commas
from job.tuning.trial import Train
from job.verify import read_result
from report.evaluation import result_line

MOST = 1000  # runs


def read_grid(words: Sequence[str]) -> dict[str, list[str]]:
    """The values by setting that words such as "train.lr=1e-4,3e-4" name. Raises ValueError for a
    setting that is not there, a value that it does not take, or one that is named twice."""
    grid: dict[str, list[str]] = {}
    for word in words:
        key, equals, text = (part.strip() for part in word.partition("="))
        values = split_commas(text)
        if not equals or not values:
            raise ValueError(f"--grid {word!r}: write SECTION.KEY=ONE,OTHER: train.lr=1e-4,3e-4")
        if key in grid:
            raise ValueError(f"--grid names {key} twice; give all of its values in one")
        if key == "run.name":
            raise ValueError(f"--grid {word!r}: each run of a grid has a name of its own already")
        read = [read_value("--grid", word, key, value) for value in values]
        for place, value in enumerate(read):
            if value in read[:place]:
                raise ValueError(f"--grid {word!r}: {values[place]} stands there twice")
        grid[key] = values
    return grid


def grid_configs(config: Config, grid: dict[str, list[str]]) -> list[tuple[str, Config]]:
    """The recipes of a grid, the last setting changing first, each with its settings in words and
    under a name that tells it apart. Raises ValueError as parse_config does."""
    count = math.prod(map(len, grid.values()))
    if count > MOST:
        raise ValueError(f"--grid asks for {count:,} runs; at most {MOST:,} are taken")
    configs = []
    for number, values in enumerate(itertools.product(*grid.values()), start=1):
        settings = dict(zip(grid, values, strict=True))
        changed = change(config, settings, f"{config.run.name}-grid{number}")
        configs.append((" ".join(f"{key}={value}" for key, value in settings.items()), changed))
    return configs


def run_grid(
    config: Config, grid: dict[str, list[str]], resume: bool, fresh: bool, train: Train
) -> list[Path]:
    """Train each; with `resume` those that are finished are left alone, and one that was cut off
    goes on. Their folders. Raises ValueError before the first one trains where one is there."""
    configs = grid_configs(config, grid)
    folders = [run_folder(config) for _, config in configs]
    for (_, config), folder in zip(configs, folders, strict=True):
        check_folder(config, folder, resume, fresh)
    for number, ((shown, config), folder) in enumerate(zip(configs, folders, strict=True), start=1):
        print(f"run {number} of {len(configs)}: {shown}", flush=True)
        if resume and (result := finished(folder)) is not None:
            print(f"{folder.path} is finished, nothing to do. {result_line(result)}", flush=True)
            continue
        train(config, lambda job: None, False)
        release_memory()  # else the next plan would count what this run held
    return [folder.path for folder in folders]


def finished(folder: Folder) -> dict[str, Any] | None:
    """The result of a run, None where it is not finished."""
    return read_result(folder) if folder.result.exists() else None
