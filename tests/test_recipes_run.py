"""Every shipped recipe runs to its first step: tiny models here, the exact shapes when slow.

The hub recipes get a local folder for `hub:` with the columns of the real data set.
"""

import copy
import json
from pathlib import Path

import pytest
from shipped import list_shipped

import train
from configs.read import read_config
from tests.conftest import make_chats

RECIPES = list_shipped("configs/*.toml")
HUB = {"imdb_distilbert_lora": "distilbert", "imdb_bert": "bert", "yelp_bert": "bert"}
HUB |= {"ultrachat_gpt2": "gpt2"}


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
    if "chat" in recipe:
        return local_chats(folder, recipe)
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


def local_chats(folder, recipe):
    """The same of conversations: two people's nested turns, or a hub set's messages."""
    if recipe not in HUB:
        people = [
            {"messages": [[{"text": turn["content"], "sender": turn["role"], "timestamp": "1"}]
                          for turn in chat]}
            for chat in make_chats(60)
        ]  # fmt: skip
        path = folder / "dataset.json"
        path.write_text(json.dumps(dict(enumerate(people))), encoding="utf-8")
        return str(path)
    from datasets import Dataset

    (folder / "hub" / "data").mkdir(parents=True)
    chats = make_chats(80)
    for split, part in (("train_sft", chats[:60]), ("test_sft", chats[60:])):
        rows = [{"prompt": chat[0]["content"], "messages": chat} for chat in part]
        Dataset.from_list(rows).to_parquet(folder / f"hub/data/{split}-00000-of-00001.parquet")
    return f"hub:{folder / 'hub'}"


def save_chat_model(folder, kind, tokenizer, tiny):
    """A language model with random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if kind == "gpt2":
        small = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": len(tokenizer)}
        GPT2LMHeadModel(GPT2Config(**small if tiny else {})).save_pretrained(folder)
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = None  # as GPT-2's has none
    else:
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_model(folder, kind, tokenizers, tiny):
    """Random weights: of a tiny model, or of the exact architecture the recipe names."""
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    tokenizer, chat_tokenizer = tokenizers
    if kind in ("gpt2", "llama"):
        return save_chat_model(folder, kind, chat_tokenizer, tiny)
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
    few = "{}" if read_config(path).data.stream else "{train = 20, test = 10}"
    overrides = [
        f"run.dir={folder / 'runs'}",
        f"data.source={local_data(folder, path.stem)}", f"data.subset={few}",
        "data.validation=10", "train.max_steps=1", "precision.device=cpu", "precision.dtype=fp32",
    ]  # fmt: skip
    if path.stem not in HUB:
        overrides.append("data.test=10")
    if "chat" in path.stem:
        overrides += ["generate.max_tokens=4", "generate.replies=2"]
    if teacher is not None:
        overrides.append(f"distill.teacher={folder / teacher.teacher}")
    if teacher is None and read_config(path).model.source != "ngrams":  # a source of their own
        overrides.append(f"model.source={model_folder}")
    assert train.main(["--config", str(path), *overrides]) == 0
    run = folder / "runs" / read_config(path).run.name
    return json.loads((run / "result.json").read_text(encoding="utf-8"))


@pytest.fixture
def tokenizers(tiny_tokenizer, chat_tokenizer):
    return tiny_tokenizer, chat_tokenizer


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_runs_to_its_first_step(path, tmp_path, tokenizers):
    kind = HUB.get(path.stem, "llama" if "chat" in path.stem else "bert")
    save_model(tmp_path / "model", kind, tokenizers, tiny=True)
    result = run_first_step(path, tmp_path, tmp_path / "model")
    assert result["progress"]["step"] == 1
    assert result["test"].get("conversations", result["test"]["n"]) == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", HUB)
def test_a_hub_recipe_runs_with_random_weights_of_the_exact_architecture(
    name, tmp_path, tokenizers, capsys
):
    path = next(path for path in RECIPES if path.stem == name)
    save_model(tmp_path / "model", HUB[name], tokenizers, tiny=False)
    assert run_first_step(path, tmp_path, tmp_path / "model")["progress"]["step"] == 1
    if name == "imdb_distilbert_lora":
        assert "601,346" in capsys.readouterr().out  # as PEFT counts them
