"""Every shipped recipe runs to its first step: tiny models here, the exact shapes when slow.

The hub recipes get a local folder for `hub:` with the columns of the real data set.
"""

import json
from pathlib import Path

import pytest
from shipped import list_shipped

import train
from configs.read import read_config

RECIPES = list_shipped("configs/*.toml")
HUB = {"imdb_distilbert_lora": "distilbert", "imdb_bert": "bert", "yelp_bert": "bert"}


def make_rows(classes, start, count):
    words = ["awful", "poor", "plain", "good", "superb"]
    return [
        {
            "text": f"film {start + i} was {words[i % classes]} and number {start + i}<br />yes",
            "label": i % classes,
            "source": "imdb",
        }
        for i in range(count)
    ]


def local_data(folder, recipe):
    """A CSV for the package recipes, a hub-like folder for the others; the source to name it by."""
    classes = 5 if "yelp" in recipe else 2
    if recipe not in HUB:
        path = folder / "reviews.jsonl"
        path.write_text(
            "\n".join(json.dumps(row) for row in make_rows(classes, 0, 60)), encoding="utf-8"
        )
        return str(path)
    from datasets import Dataset

    (folder / "hub" / "data").mkdir(parents=True)
    for split, start in (("train", 0), ("test", 1000)):
        rows = Dataset.from_list(make_rows(classes, start, 60)).remove_columns("source")
        rows.to_parquet(folder / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    return f"hub:{folder / 'hub'}"


def save_model(folder, kind, tokenizer, tiny):
    """Random weights: of a tiny model, or of the exact architecture the recipe names."""
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    if kind == "distilbert":
        small = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64} if tiny else {}
        model = DistilBertModel(DistilBertConfig(**small))
    else:
        small = {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64,
        } if tiny else {"vocab_size": 28996}  # fmt: skip
        model = BertModel(BertConfig(**small))
    model.save_pretrained(folder)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)


def run_first_step(path, folder, model_folder):
    teacher = read_config(path).distill
    if teacher is not None:  # as the recipe says: first the run that teaches
        run_first_step(path.parent / f"{Path(teacher.teacher).name}.toml", folder, model_folder)
    overrides = [
        f"run.dir={folder / 'runs'}",
        f"data.source={local_data(folder, path.stem)}", "data.subset={train = 20, test = 10}",
        "data.validation=10", "train.max_steps=1", "precision.device=cpu", "precision.dtype=fp32",
    ]  # fmt: skip
    if path.stem not in HUB:
        overrides.append("data.test=10")
    if teacher is not None:
        overrides.append(f"distill.teacher={folder / teacher.teacher}")
    if teacher is None and read_config(path).model.source != "ngrams":  # a source of their own
        overrides.append(f"model.source={model_folder}")
    assert train.main(["--config", str(path), *overrides]) == 0
    run = folder / "runs" / read_config(path).run.name
    return json.loads((run / "result.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_runs_to_its_first_step(path, tmp_path, tiny_tokenizer):
    save_model(tmp_path / "model", HUB.get(path.stem, "bert"), tiny_tokenizer, tiny=True)
    result = run_first_step(path, tmp_path, tmp_path / "model")
    assert result["progress"]["step"] == 1
    assert result["test"]["n"] == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", HUB)
def test_a_hub_recipe_runs_with_random_weights_of_the_exact_architecture(
    name, tmp_path, tiny_tokenizer, capsys
):
    path = next(path for path in RECIPES if path.stem == name)
    save_model(tmp_path / "model", HUB[name], tiny_tokenizer, tiny=False)
    assert run_first_step(path, tmp_path, tmp_path / "model")["progress"]["step"] == 1
    if name == "imdb_distilbert_lora":
        assert "601,346" in capsys.readouterr().out  # as PEFT counts them
