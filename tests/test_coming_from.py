"""docs/coming-from.md: every option that it names is there, on their side and on ours."""

import ast
import dataclasses
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import peft
import pytest
import sentence_transformers
import transformers
from sentence_transformers import SentenceTransformerTrainingArguments, losses

import predict
import train
from configs.fields import list_settings
from configs.read import parse_config, read_config

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)$\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
OPTION = re.compile(r"`([^`]+)`")


def rows_of(section):
    """(theirs, ours) of each row of a section's table."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert all(len(row) == 3 for row in cells), "three cells a row"
    return [(OPTION.findall(theirs), OPTION.findall(ours)) for theirs, ours, _ in cells]


def theirs_of(section):
    return [name for theirs, _ in rows_of(section) for name in theirs]


def fields(kind):
    return {field.name for field in dataclasses.fields(kind)}


def test_each_section_has_a_table_and_says_what_differs():
    assert list(SECTIONS) == ["The Trainer", "PEFT", "SetFit", "sentence-transformers", "spaCy"]
    for name, text in SECTIONS.items():
        assert len(rows_of(name)) > 5, name
        assert "What is different here: " in text, name


@pytest.mark.parametrize("section", SECTIONS)
def test_each_of_our_settings_is_one(section, capsys):
    options = ""
    for script in (train, predict):
        with pytest.raises(SystemExit):
            script.main(["--help"])
        options += capsys.readouterr().out
    for _, ours in rows_of(section):
        for name in ours:
            assert name in list_settings() or (name.startswith("--") and name in options), name


def test_the_trainers_script_and_its_recipe_are_both_understood():
    (script,) = re.findall(r"```python\n(.*?)```", SECTIONS["The Trainer"], re.S)
    assert len(script.splitlines()) <= 10
    given = {}
    for line in ast.parse(script).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets) in ("best", "train"):
            given |= ast.literal_eval(line.value)
    assert set(given) <= fields(transformers.TrainingArguments)
    (recipe,) = re.findall(r"```toml\n(.*?)```", SECTIONS["The Trainer"], re.S)
    config = parse_config(tomllib.loads(recipe))
    assert config.train.epochs == given["num_train_epochs"]
    assert config.train.lr == given["learning_rate"]
    assert config.train.micro_batch_size == given["per_device_train_batch_size"]
    assert config.eval.every == given["eval_strategy"]
    assert f"seed={config.run.seed}," in script
    assert str(config.data.max_length) in script
    assert config.model.source.removeprefix("hub:") in script


def test_each_command_is_understood():
    text = PAGE.replace("\\\n", "")
    commands = re.findall(r"^python train\.py (.+)$", text, re.M)
    assert len(commands) == 3
    for command in commands:
        options = train.parse_arguments(shlex.split(command, comments=True))
        overrides = [word for word in shlex.split(command) if re.match(r"[a-z_.]+=", word)]
        assert read_config(ROOT / options.config, overrides, options.unset or []).run.name


def test_every_setting_in_a_sentence_is_one():
    named = re.findall(r"`((?:model|lora|train|data|head|contrast)\.[a-z_]+)`", PAGE)
    assert set(named) <= set(list_settings())


def test_the_trainers_options_are_its_own():
    trainer = set(inspect.signature(transformers.Trainer.__init__).parameters)
    known = fields(transformers.TrainingArguments) | trainer
    assert set(theirs_of("The Trainer")) <= known
    assert hasattr(transformers, "EarlyStoppingCallback")


def test_pefts_options_are_its_own():
    for name in theirs_of("PEFT"):
        assert name in fields(peft.LoraConfig) or issubclass(getattr(peft, name), peft.PeftConfig)


def test_sentence_transformers_options_are_its_own():
    for name in [*theirs_of("sentence-transformers"), "MultipleNegativesRankingLoss"]:
        is_field = name in fields(SentenceTransformerTrainingArguments)
        assert is_field or hasattr(losses, name) or hasattr(sentence_transformers, name), name


def test_setfits_options_are_its_own():
    setfit = pytest.importorskip("setfit", reason="setfit is not installed")
    names = {*theirs_of("SetFit")} - {"SetFitModel.from_pretrained"}
    assert names - {"sample_dataset"} <= fields(setfit.TrainingArguments)
    assert hasattr(setfit, "sample_dataset")
    assert hasattr(setfit.SetFitModel, "from_pretrained")


def test_defaults_that_differ_are_as_it_says():
    ours = list_settings()
    theirs = {f.name: f.default for f in dataclasses.fields(transformers.TrainingArguments)}
    assert (ours["train.warmup"].default, theirs["warmup_steps"]) == (0.06, 0)
    assert (ours["train.lr"].default, theirs["learning_rate"]) == (2e-5, 5e-5)
    batches = ours["train.micro_batch_size"].default, theirs["per_device_train_batch_size"]
    assert batches == (16, 8)
    assert (ours["eval.every"].default, theirs["eval_strategy"]) == ("epoch", "no")
    assert (ours["train.weight_decay"].default, theirs["weight_decay"]) == (0.01, 0)
    assert (ours["lora.alpha"].default, peft.LoraConfig().lora_alpha) == (16.0, 8)
