"""Exports: what is written, and that it opens again to the same bits."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import models.snippet
from models.build import build_model
from models.export import export_model, load_exported
from models.load import load_tokenizer
from models.methods.lora import LoRA
from models.methods.method import added_modules, merge
from models.snippet import loading_snippet

ROOT = Path(__file__).parents[2]
OWN = """
from torch import nn
from torch.nn import functional as F

class MyHead(nn.Module):
    def __init__(self, hidden_size, num_labels, dropout, power=2):
        super().__init__()
        self.out, self.power = nn.Linear(hidden_size, num_labels), power

    def forward(self, hidden, mask):
        return self.out(hidden[:, 0] ** self.power)
"""
WAYS = {
    "native": {},
    "native-lora": {"method": "targets"},
    "native-last": {"train": "last:1"},
    "native-head": {"train": "head"},
    "native-lora-last": {"method": "targets", "train": "last:1"},
    "linear": {"head_kind": "linear", "head_pool": "mean"},
    "linear-lora": {"head_kind": "linear", "head_pool": "cls", "method": "targets"},
    "mlp-lora-last": {"head_kind": "mlp", "method": "targets", "train": "last:1"},
    "mlp-last": {"head_kind": "mlp", "head_args": {"width": 7}, "train": "last:1"},
}


@pytest.fixture
def trained(make, stir, targets):
    """trained("bert", "native-lora", ...) -> (built, args, tokenizer), every trainable moved."""

    def build(name, way, **more):
        values = {**WAYS[way], **more}
        if values.get("method") == "targets":
            values["method"] = LoRA(targets[name], rank=2, alpha=4.0)
        built, args, tokenizer = make(name, seed=9, **values)
        stir(built.model)
        return built, args, tokenizer

    return build


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "roberta"])
@pytest.mark.parametrize("way", WAYS)
def test_reloaded_logits_are_the_same_bits(trained, encode, logits_of, tmp_path, name, way):
    built, args, tokenizer = trained(name, way)
    batch = encode(tokenizer)
    expected = logits_of(built.model, batch)
    export_model(built, args, tokenizer, tmp_path)
    model, again, args_again = load_exported(tmp_path)
    assert not model.training
    assert args_again == args
    assert encode(again)["input_ids"].equal(batch["input_ids"])
    assert torch.equal(logits_of(model, encode(again)), expected)


def test_fresh_process_gives_the_same_logits(trained, encode, logits_of, tmp_path):
    code = """
import sys, torch
from models.export import load_exported
for folder in sys.argv[2:]:
    model, tokenizer, _ = load_exported(folder)
    rows = ["the film was good", "bad", "the actor was bad and the film was good too"]
    out = model(**tokenizer(rows, padding=True, return_tensors="pt"))
    torch.save(out if isinstance(out, torch.Tensor) else out.logits, folder + "/logits.pt")
"""
    expected = {}
    for name, way in (("bert", "native-lora"), ("distilbert", "linear-lora"), ("gpt2", "native")):
        built, args, tokenizer = trained(name, way)
        export_model(built, args, tokenizer, tmp_path / name)
        expected[name] = logits_of(built.model, encode(tokenizer)).detach()
    folders = [str(tmp_path / name) for name in expected]
    subprocess.run([sys.executable, "-c", code, "-", *folders], check=True, cwd=ROOT)
    for name, logits in expected.items():
        assert torch.equal(torch.load(tmp_path / name / "logits.pt"), logits)


@pytest.mark.parametrize("name", ["roberta", "gpt2"])
@pytest.mark.parametrize("way", WAYS)
def test_every_trainable_and_newly_initialised_parameter_is_in_the_files(
    trained, tmp_path, name, way
):
    built, args, tokenizer = trained(name, way)
    export_model(built, args, tokenizer, tmp_path)
    stored = {}
    for file in tmp_path.glob("*.safetensors"):
        for key, tensor in load_file(file).items():
            key = "head." + key if file.name == "head.safetensors" else key
            stored[
                key.removeprefix("base_model.model.")
                .replace("lora_A.weight", "lora_A")
                .replace("lora_B.weight", "lora_B")
            ] = tensor
    named = dict(built.model.named_parameters())
    for key in {n for n, p in named.items() if p.requires_grad} | set(built.initialised):
        assert named[key].requires_grad
        assert torch.equal(stored[key.removeprefix("backbone.")], named[key])


def test_pooler_missing_from_the_weights_is_among_modules_to_save(
    trained, folders, encode, logits_of, tmp_path
):
    from transformers import AutoModel

    source = tmp_path / "source"
    shutil.copytree(folders["bert"], source)
    AutoModel.from_pretrained(folders["bert"], add_pooling_layer=False).save_pretrained(source)
    built, args, tokenizer = trained("bert", "native-lora", source=str(source))
    export_model(built, args, tokenizer, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["modules_to_save"] == ["classifier", "bert.pooler.dense"]
    batch = encode(tokenizer)
    model, _, _ = load_exported(tmp_path / "out")
    assert torch.equal(logits_of(model, batch), logits_of(built.model, batch))
    names = run_snippet(tmp_path / "out", args)
    assert torch.equal(names["model"](**batch).logits, logits_of(built.model, batch))


PACKAGES = ("openloop", "models", "models.export", "job", "engine", "data", "configs", "report")


@pytest.mark.parametrize("pool", ["cls", "mean", "last"])
@pytest.mark.parametrize("head", ["linear", "mlp", "mlp relu"])
def test_a_snippet_pools_and_answers_as_the_head_does(trained, tmp_path, pool, head):
    kind, _, activation = head.partition(" ")
    more = {"activation": activation} if activation else {}
    values = {"head_kind": kind, "head_pool": pool, "head_args": more}
    built, args, tokenizer = trained("bert", "linear", **values)
    export_model(built, args, tokenizer, tmp_path)
    for texts in (["It was good.", "Not a fan."], ["good", "a much longer text of a film " * 3]):
        snippet = loading_snippet(tmp_path, args).replace("It was good.", texts[0])
        names = {}
        exec(snippet.replace("Not a fan.", texts[1]), names)
        with torch.no_grad():
            expected = built.model.eval()(**names["inputs"])
        torch.testing.assert_close(names["logits"], expected, atol=1e-6, rtol=1e-5)


def run_snippet(folder, args):
    names = {}
    exec(loading_snippet(folder, args), names)
    return names


@pytest.mark.parametrize("name", ["distilbert", "gpt2", "llama"])
@pytest.mark.parametrize("way", WAYS)
def test_loading_snippet_opens_the_export_elsewhere(
    trained, encode, logits_of, tmp_path, name, way
):
    built, args, tokenizer = trained(name, way)
    export_model(built, args, tokenizer, tmp_path)
    names = run_snippet(tmp_path, args)
    assert names["logits"].shape == (2, 2)
    batch = encode(names["tokenizer"])
    expected = logits_of(built.model, batch)
    ours, _, _ = load_exported(tmp_path)
    with torch.no_grad():
        shown = ours(**names["inputs"])
    shown = shown if isinstance(shown, torch.Tensor) else shown.logits
    torch.testing.assert_close(names["logits"], shown, atol=1e-6, rtol=1e-5)
    assert not any(f"from {package} " in loading_snippet(tmp_path, args) for package in PACKAGES)
    if args.head_kind == "native":
        assert torch.equal(logits_of(names["model"], batch), expected)
        assert type(names["model"]).__module__.split(".")[0] in ("transformers", "peft")
    else:
        real = batch["attention_mask"].bool()
        hidden = names["backbone"](**batch).last_hidden_state[real]
        ours = built.model.backbone(**batch).last_hidden_state[real]
        assert torch.equal(hidden, ours)


@pytest.mark.parametrize("way", WAYS)
def test_config_json_never_stands_beside_adapter_config_json(trained, tmp_path, way):
    built, args, tokenizer = trained("bert", way)
    export_model(built, args, tokenizer, tmp_path)
    held = {file.name for file in tmp_path.iterdir()}
    assert ("adapter_config.json" in held) is (args.method is not None)
    assert ("config.json" in held) is (args.method is None)
    assert {"openloop.json", "labels.json", "tokenizer.json"} <= held
    assert {"head.json", "head.safetensors"} <= held or args.head_kind == "native"
    names = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    assert names == {"kind": "single", "names": ["neg", "pos"]}


def test_native_full_export_carries_label_names(trained, tmp_path):
    from transformers import AutoModelForSequenceClassification

    built, args, tokenizer = trained("bert", "native")
    export_model(built, args, tokenizer, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.id2label == {0: "neg", 1: "pos"}


def test_adapters_are_stored_in_float32_and_only_they(trained, tmp_path):
    built, args, tokenizer = trained("bert", "native-lora")
    export_model(built, args, tokenizer, tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    kinds = {name.rpartition("self.")[2] for name in stored if "lora_" in name}
    assert kinds == {f"{t}.lora_{x}.weight" for t in ("query", "value") for x in "AB"}
    assert len(stored) == 2 * 2 * 2 + 2


def test_merged_adapters_are_not_exported(trained, tmp_path):
    built, args, tokenizer = trained("bert", "native-lora")
    merge(built.model)
    with pytest.raises(ValueError, match="unmerge"):
        export_model(built, args, tokenizer, tmp_path)


def test_changed_base_or_changed_export_is_refused(trained, folders, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(folders["bert"], source)
    built, args, tokenizer = trained("bert", "native-lora", source=str(source))
    export_model(built, args, tokenizer, tmp_path / "out")
    with (source / "config.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(ValueError, match="is not the one it was trained on"):
        load_exported(tmp_path / "out")
    with (tmp_path / "out" / "adapter_model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"bytes of adapter_model\.safetensors have changed"):
        load_exported(tmp_path / "out")
    with pytest.raises(ValueError, match=r"has no openloop\.json"):
        load_exported(tmp_path)


def test_own_head_travels_with_its_code_and_still_needs_permission(
    trained, encode, logits_of, tmp_path
):
    path = tmp_path / "my_head.py"
    path.write_text(OWN, encoding="utf-8")
    kind, out = f"{path}:MyHead", tmp_path / "out"
    values = {"head_kind": kind, "head_pool": None, "head_args": {"power": 3}, "allow_code": True}
    for way in ("linear", "linear-lora"):
        path.write_text(OWN, encoding="utf-8")
        built, args, tokenizer = trained("bert", way, **values)
        path.write_text(OWN.replace("**", "+"), encoding="utf-8")  # edited while the run went on
        export_model(built, args, tokenizer, out)
        path.unlink()
        with pytest.raises(ValueError, match="--allow-code"):
            load_exported(out)
        model, _, _ = load_exported(out, allow_code=True)
        batch = encode(tokenizer)
        assert torch.equal(logits_of(model, batch), logits_of(built.model, batch))
        assert "allow_code=True" in loading_snippet(out, args)
        shutil.rmtree(out)


def finished(trained, root, name, way, **more):
    """A run folder with an exported model in it; returns ("run:...", built)."""
    built, args, tokenizer = trained(name, way, **more)
    export_model(built, args, tokenizer, root / "model")
    return f"run:{root}", built


@pytest.mark.parametrize("name", ["bert", "gpt2"])
@pytest.mark.parametrize("way", ["native", "native-lora", "linear", "linear-lora"])
def test_run_as_source_goes_on_from_its_model_and_head(
    trained, make, encode, logits_of, tmp_path, name, way
):
    source, before = finished(trained, tmp_path, name, way)
    values = {k: v for k, v in WAYS[way].items() if k != "method"}
    built, _, tokenizer = make(name, source=source, seed=1, **values)
    batch = encode(tokenizer)
    found, expected = logits_of(built.model, batch), logits_of(before.model, batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert built.initialised == []
    assert not added_modules(built.model)
    assert any("head: taken over" in note for note in built.notes)


NUMBER = {"kind": "regression", "num_labels": 1, "label_names": ()}
UNIT = {"target_mean": 183204.5, "target_deviation": 50210.25}


@pytest.mark.parametrize("way", ["native", "native-lora", "linear-lora"])
def test_a_regressions_unit_is_stored_and_shown(trained, encode, logits_of, tmp_path, way):
    built, args, tokenizer = trained("distilbert", way, **NUMBER, **UNIT)
    export_model(built, args, tokenizer, tmp_path)
    stored = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    assert stored == {"kind": "regression", "names": [], **UNIT}
    assert load_exported(tmp_path)[2] == args
    names = run_snippet(tmp_path, args)
    expected = names["logits"].squeeze(-1).double() * 50210.25 + 183204.5
    assert names["values"].shape == (2,)
    assert torch.equal(names["values"], expected)


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_a_snippet_prints_its_answers(trained, tmp_path, capsys, kind):
    values = {"kind": kind} if kind != "regression" else {**NUMBER, **UNIT}
    built, args, tokenizer = trained("bert", "linear", **values)
    export_model(built, args, tokenizer, tmp_path)
    names = run_snippet(tmp_path, args)
    shown = capsys.readouterr().out.splitlines()
    if kind == "regression":
        assert shown == [str(names["values"].tolist())]
        return
    labels = list(args.label_names) or ["0", "1"]
    rows = names["probabilities"]
    if kind == "single":
        assert shown == [f"{labels[r.argmax()]} {round(r.max().item(), 4)}" for r in rows]
        torch.testing.assert_close(rows, names["logits"].softmax(-1))
    else:
        expected = [
            {n: round(p, 4) for n, p in zip(labels, r, strict=True) if p > 0.5}
            for r in rows.tolist()
        ]
        assert shown == [str(one) for one in expected]
        torch.testing.assert_close(rows, names["logits"].sigmoid())


def test_a_snippet_of_many_labels_reads_them(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(models.snippet, "SHOWN", 1)
    built, args, tokenizer = trained("bert", "linear", label_names=("no", "yes"))
    export_model(built, args, tokenizer, tmp_path)
    run_snippet(tmp_path, args)
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} <= {"no", "yes"}


def test_a_snippet_for_classes_has_no_unit(trained, tmp_path):
    built, args, tokenizer = trained("bert", "native")
    export_model(built, args, tokenizer, tmp_path)
    assert "values" not in loading_snippet(tmp_path, args)


@pytest.mark.parametrize("way", ["native", "native-lora", "linear"])
def test_a_head_taken_over_from_a_run_tells_the_unit_it_speaks(trained, make, tmp_path, way):
    source, _ = finished(trained, tmp_path, "bert", way, **NUMBER, **UNIT)
    values = {k: v for k, v in WAYS[way].items() if k != "method"} | NUMBER
    assert make(source=source, **values)[0].target == (183204.5, 50210.25)
    assert make(source=source, **values | {"head_pool": None, "head_kind": "mlp"})[0].target is None


def test_a_regression_head_from_elsewhere_speaks_plain_numbers(trained, make, folders, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folders["bert"], num_labels=1)
    source = tmp_path / "elsewhere"
    shutil.copytree(folders["bert"], source)
    model.save_pretrained(source)
    assert make(source=str(source), **NUMBER)[0].target == (0.0, 1.0)


def test_head_of_a_run_is_new_when_labels_or_pooling_differ(trained, make, tmp_path):
    source, before = finished(trained, tmp_path, "bert", "linear")
    for change in ({"label_names": ("pos", "neg")}, {"head_pool": "cls"}, {"kind": "multi"}):
        values = {"head_kind": "linear", "head_pool": "mean", **change}
        built, _, _ = make(source=source, **values)
        assert set(built.initialised) == {"head.out.weight", "head.out.bias"}
        assert not torch.equal(built.model.head.out.weight, before.model.head.out.weight)
        assert any("head: new" in note for note in built.notes)


@pytest.mark.parametrize("way", ["native-lora", "linear-lora"])
def test_run_changes_between_native_and_other_heads(trained, make, tmp_path, way):
    source, before = finished(trained, tmp_path, "bert", way)
    merge(before.model)
    if way == "native-lora":
        built, _, _ = make(source=source, head_kind="mlp")
        inner, old = built.model.backbone, before.model.bert
        assert all(name.startswith("head.") for name in built.initialised)
    else:
        built, _, _ = make(source=source)
        inner, old = built.model.bert, before.model.backbone
        pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
        assert set(built.initialised) == pooler | {"classifier.weight", "classifier.bias"}
    query = "encoder.layer.1.attention.self.query"
    assert torch.equal(inner.get_submodule(query).weight, old.get_submodule(query).base.weight)


@pytest.mark.parametrize("first", ["native-lora", "linear-lora"])
@pytest.mark.parametrize("second", ["native-lora", "linear-lora"])
def test_adapters_trained_on_a_merged_run_export_their_base_too(
    trained, encode, logits_of, tmp_path, first, second
):
    source, _ = finished(trained, tmp_path / "first", "bert", first)
    out = tmp_path / "second"
    lora = LoRA("all-linear", rank=2)
    built, args, tokenizer = trained("bert", second, source=source, method=lora)
    export_model(built, args, tokenizer, out)
    shutil.rmtree(tmp_path / "first")  # the new export stands alone
    batch = encode(tokenizer)
    expected = logits_of(built.model, batch)
    model, _, _ = load_exported(out)
    assert torch.equal(logits_of(model, batch), expected)
    names = run_snippet(out, args)
    shown = logits_of(built.model, names["inputs"])
    torch.testing.assert_close(names["logits"], shown, atol=1e-6, rtol=1e-5)


def test_package_source_is_named_as_such_in_record_and_snippet(
    trained, folders, encode, logits_of, tmp_path, monkeypatch
):
    (tmp_path / "boxed_model").mkdir()
    (tmp_path / "boxed_model" / "__init__.py").touch()
    shutil.copytree(folders["bert"], tmp_path / "boxed_model" / "model")
    monkeypatch.syspath_prepend(tmp_path)
    built, args, tokenizer = trained("bert", "native-lora", source="package:boxed_model/model")
    export_model(built, args, tokenizer, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "openloop.json").read_text(encoding="utf-8"))
    assert record["base"]["source"] == "package:boxed_model/model"
    snippet = loading_snippet(tmp_path / "out", args)
    assert "find_spec('boxed_model')" in snippet
    assert "# the package boxed_model has to be there" in snippet  # pip knows no such package
    monkeypatch.setattr(
        models.snippet, "packages_distributions", lambda: {"boxed_model": ["numpy"]}
    )
    snippet = loading_snippet(tmp_path / "out", args)
    assert f"# pip install numpy=={version('numpy')}" in snippet
    batch = encode(tokenizer)
    found = run_snippet(tmp_path / "out", args)["model"](**batch).logits
    assert torch.equal(found, logits_of(built.model, batch))


def test_exported_tokenizer_does_not_cut_or_pad(trained, tmp_path):
    from transformers import AutoTokenizer

    built, args, tokenizer = trained("bert", "native-lora")
    export_model(built, args, tokenizer, tmp_path)
    for again in (AutoTokenizer.from_pretrained(tmp_path), load_exported(tmp_path)[1]):
        assert len(again("good " * 400)["input_ids"]) == 402
        assert len(again("good")["input_ids"]) == 3


def test_model_that_moved_is_found_again_by_build(trained, tmp_path):
    source, _ = finished(trained, tmp_path / "one", "bert", "native")
    (tmp_path / "one").rename(tmp_path / "two")
    args = trained("bert", "native")[1]
    moved = replace(args, source=f"run:{tmp_path / 'two'}")
    built = build_model(moved, load_tokenizer(moved.source), 0)
    assert built.initialised == []
    with pytest.raises(ValueError, match="not a finished run"):
        build_model(replace(args, source=source), None, 0)
