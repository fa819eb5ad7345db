"""What ships: the recipes, the generated reference and the words of the schema."""

import json
import re
from pathlib import Path

import pytest
from shipped import list_shipped

from configs import reference
from configs.fields import describe, list_settings
from configs.read import read_config

FOLDER = Path(reference.__file__).parent
RECIPES = list_shipped("configs/*.toml")
SAMPLES = [
    "It was good.",
    "Not a fan, don't recommend.",
    "Better than the first one.",
    "This is not worth watching even once.",
    "This one is a pass.",
]


def test_the_recipes_that_ship_are_those_of_the_readme():
    rows = re.findall(
        r"^\| `(\w+)\.toml` \|", (FOLDER / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert sorted(rows) == sorted(path.stem for path in RECIPES)


# what programs outside of this repository set
OUTSIDE = {
    "lora.variant": '"lora", "rslora", "dora" or "FILE.py:CLASS"',
    "lora.init": '"kaiming" or "pissa"',
    "lora.plus_ratio": "number above 0",
    "adapter.size": "integer from 1",
    "adapter.placement": '"both" or "feed_forward"',
    "prompt.tokens": "integer from 1",
    "prompt.text": "text",
    "prefix.tokens": "integer from 1",
    "distill.teacher": "text",
    "distill.temperature": "number above 0",
    "distill.weight": "number from 0 up to 1",
    "distill.student": '"ngrams", or "layers:N" with N from 2',
    "data.long": '"cut", "head_tail" or "chunks"',
    "data.head_tokens": "integer from 1",
    "data.stride": "integer from 0",
    "model.cache": '"auto" or "off"',
}
PATTERNS = {  # words that fit, words that do not
    "lora.variant": (["lora", "rslora", "dora", "my_file.py:MyLoRA"], ["LoRA", "qlora", "mine.py"]),
    "distill.student": (["ngrams", "layers:2", "layers:12"], ["layers:1", "layers:", "bag"]),
}


def shape_of(key):
    """What configs/schema.json says of a key."""
    schema = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    shape = schema
    for part in key.split("."):
        shape = next(s for s in shape.get("anyOf", [shape]) if s.get("type") != "null")
        shape = schema["$defs"][shape["$ref"].rpartition("/")[2]] if "$ref" in shape else shape
        shape = shape["properties"][part]
    return shape


@pytest.mark.parametrize("key", OUTSIDE)
def test_a_key_that_others_rely_on_takes_the_words_they_give_it(key):
    shape = shape_of(key)
    assert describe(shape) == OUTSIDE[key]
    if key in PATTERNS:
        (pattern,) = (s["pattern"] for s in shape.get("anyOf", [shape]) if "pattern" in s)
        for words, fits in zip(PATTERNS[key], (True, False), strict=True):
            assert [word for word in words if bool(re.search(pattern, word)) != fits] == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_reads_and_is_named_like_its_file(path):
    assert read_config(path).run.name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_states_its_command_and_what_was_measured(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#:schema ./schema.json\n")
    assert f"python train.py --config configs/{path.name}\n" in text
    assert "Measured:" in text or "Not run to the end here" in text
    assert f"| `{path.name}` | `python train.py --config configs/{path.name}` |" in (
        FOLDER / "README.md"
    ).read_text(encoding="utf-8")


def test_imdb_full_sees_the_rows_of_imdb_lora():
    lora, full = (read_config(FOLDER / f"{name}.toml") for name in ("imdb_lora", "imdb_full"))
    assert full.data == lora.data
    assert full.model.source == lora.model.source
    assert full.lora is None


def test_imdb_quick_is_imdb_lora_on_less_of_everything_at_a_larger_rate():
    lora, quick = (read_config(FOLDER / f"{name}.toml") for name in ("imdb_lora", "imdb_quick"))
    as_long = {"subset": lora.data.subset, "max_length": lora.data.max_length}
    same = {"data": quick.data.model_copy(update=as_long), "run": lora.run, "train": lora.train}
    same |= {"lora": quick.lora.model_copy(update={"targets": lora.lora.targets})}
    same |= {"bag": lora.bag}
    assert quick.train == lora.train.model_copy(update={"lr": 4 * lora.train.lr})
    assert quick.lora.targets == ["query", "value"]
    assert quick.model_copy(update=same) == lora


def test_distilbert_recipe_is_the_published_one():
    config = read_config(FOLDER / "imdb_distilbert_lora.toml")
    lora, train, data = config.lora, config.train, config.data
    assert (lora.rank, lora.alpha, lora.dropout, lora.targets) == (1, 32.0, 0.01, ["q_lin"])
    assert (train.lr, train.micro_batch_size, train.epochs) == (1e-3, 4, 10)
    assert (train.weight_decay, train.warmup, train.schedule) == (0.01, 0, "linear")
    assert (data.truncation, data.max_length, config.eval.every) == ("left", 512, "epoch")
    assert config.samples.texts == SAMPLES


def test_yelp_recipe_is_the_published_one():
    config = read_config(FOLDER / "yelp_bert.toml")
    assert config.model.source == "hub:bert-base-cased"
    assert len(config.data.labels) == 5
    assert (config.train.micro_batch_size, config.train.epochs, config.train.lr) == (8, 3, 5e-5)
    assert (config.data.subset, config.data.subset_seed) == ({"train": 1000, "test": 1000}, 42)


@pytest.mark.parametrize("key", list_settings())
def test_setting_has_a_sentence_and_a_trajectory_mark(key):
    setting = list_settings()[key]
    assert setting.sentence.endswith(".")
    assert len(setting.sentence) > 10
    assert isinstance(setting.trajectory, bool)
    assert setting.allowed


def test_the_reference_in_the_readme_is_current():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert text == reference.render_readme(text), "run: python -m configs.reference"


def test_the_json_schema_is_current():
    text = (FOLDER / "schema.json").read_text(encoding="utf-8")
    assert text == reference.render_schema(), "run: python -m configs.reference"
    assert json.loads(text)["properties"]["train"]


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="expected one line"):
        reference.render_readme("# Recipes")


def test_each_setting_has_one_row_in_the_reference():
    rows = [line for line in reference.render_table().splitlines() if line.startswith("| `")]
    assert len(rows) == len(list_settings())
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)
