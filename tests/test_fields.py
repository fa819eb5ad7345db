"""Every setting does something: changing it changes the plan, the steps or what is written.

One row a setting: (what is changed, where it must show, what is changed on both sides first).
"""

import contextlib
import io
import json
import re

import pytest

import train
from configs.fields import list_settings
from job.folder import Folder
from job.reporting.page import write_page

PLAN, STEPS, FILES, SAID = "the plan", "the first steps", "the files", "what is said"
NO_LORA = ["--unset", "lora"]
ADAPTER = [*NO_LORA, "adapter.size=2"]
OWN = [*NO_LORA, "method.kind={own}:IA3", "--allow-code"]
PROMPT = [*NO_LORA, "prompt.tokens=2"]
DROPOUT = ["model.dropout=0.3"]
CONTRAST = ["contrast.pairs=6"]
STREAM = ["data.clean.duplicates=false", "data.on_overlap=drop", "eval.baseline=false"]
STREAM += ["data.validation=8", "data.test=8"]
DISTILL = ["distill.teacher={teacher}/first"]

TABLE = {
    "run.name": (["run.name=other"], PLAN, []),
    "run.dir": (["run.dir={tmp}/elsewhere"], PLAN, []),
    "run.seed": (["run.seed=5"], STEPS, []),
    "run.deterministic": (["run.deterministic=true"], PLAN, []),
    "run.keep": (["run.keep=1"], FILES, ["eval.every=1"]),
    "run.save_every": (["run.save_every=1"], FILES, ["run.keep=9"]),
    "run.log_every": (["run.log_every=2"], STEPS, []),
    "run.threads": (["run.threads=1"], PLAN, []),
    "model.source": (["model.source={other}"], STEPS, []),
    "model.revision": (["model.revision=v1"], SAID, ["model.source=hub:no/model"]),
    "model.dropout": (["model.dropout=0.5"], STEPS, DROPOUT),
    "model.train": (["model.train=head"], PLAN, [*NO_LORA]),
    "model.cache": (["model.cache=off"], PLAN, ["--unset", "lora", "model.train=head"]),
    "model.activation_checkpointing": (["model.activation_checkpointing=true"], PLAN, []),
    "model.compile": (["model.compile=true"], PLAN, []),
    "head.kind": (["head.kind=mlp"], PLAN, []),
    "head.pool": (["head.pool=cls"], STEPS, []),
    "head.dropout": (["head.dropout=0.5"], STEPS, []),
    "head.args": (["head.args={width = 6}"], PLAN,
                  ["head.kind={head}", "--unset", "head.pool", "--allow-code"]),
    "lora.rank": (["lora.rank=3"], PLAN, []),
    "lora.alpha": (["lora.alpha=64.0"], STEPS, []),
    "lora.dropout": (["lora.dropout=0.5"], STEPS, []),
    "lora.targets": (['lora.targets=["key"]'], STEPS, []),
    "lora.layers": (["lora.layers=[1, 1]"], PLAN, []),
    "lora.variant": (["lora.variant=dora"], PLAN, []),
    "lora.init": (["lora.init=pissa"], STEPS, []),
    "lora.plus_ratio": (["lora.plus_ratio=4.0"], PLAN, []),
    "lora.rank_pattern": (["lora.rank_pattern={query = 4}"], PLAN, []),
    "lora.alpha_pattern": (["lora.alpha_pattern={query = 64.0}"], STEPS, []),
    "lora.bias": (["lora.bias=all"], PLAN, []),
    "adapter.size": (["adapter.size=3"], PLAN, ADAPTER),
    "adapter.placement": (["adapter.placement=feed_forward"], PLAN, ADAPTER),
    "adapter.activation": (["adapter.activation=relu"], STEPS, ADAPTER),
    "adapter.norms": (["adapter.norms=true"], PLAN, ADAPTER),
    "prompt.tokens": (["prompt.tokens=3"], PLAN, PROMPT),
    "prompt.text": (["prompt.text=good"], STEPS, PROMPT),
    "prefix.tokens": (["prefix.tokens=3"], PLAN, [*NO_LORA, "prefix.tokens=2"]),
    "method.kind": (["method.kind={own}:Other"], PLAN, OWN),
    "method.args": (['method.args={targets = ["key"]}'], PLAN, OWN),
    "distill.teacher": (["distill.teacher={teacher}/second"], PLAN, [*DISTILL]),
    "distill.temperature": (["distill.temperature=5"], STEPS, [*DISTILL]),
    "distill.weight": (["distill.weight=0.9"], STEPS, [*DISTILL]),
    "distill.hidden": (["distill.hidden=2"], PLAN, [*DISTILL]),
    "distill.student": (["distill.student=layers:2", "--unset", "model.source"], PLAN,
                        [*DISTILL]),
    "bag.rows": (["bag.rows=train"], PLAN, ["bag.rows=all", "data.subset={train = 20}"]),
    "contrast.pairs": (["contrast.pairs=8"], PLAN, [*CONTRAST]),
    "contrast.weight": (["contrast.weight=0.9"], STEPS, [*CONTRAST]),
    "data.source": (["data.source={table}"], STEPS, []),
    "data.config": (["data.config=second"], SAID, ["data.source=hub:no/data"]),
    "data.revision": (["data.revision=v1"], SAID, ["data.source=hub:no/data"]),
    "data.splits": (["data.splits={train = 'train', test = 'held'}"], PLAN, ["data.source={hub}"]),
    "data.encoding": (["data.encoding=cp1252"], STEPS, ["data.source={wide}"]),
    "data.delimiter": (["data.delimiter=;"], SAID, ["data.source={wide}"]),
    "data.quoting": (["data.quoting=none"], PLAN, ["data.source={wide}"]),
    "data.escape": (["data.escape=é"], STEPS, ["data.source={wide}"]),
    "data.header": (['data.header=["label", "text"]'], SAID, ["data.source={headless}"]),
    "data.label_separator": (["data.label_separator=+"], PLAN, ["data.source={wide}"]),
    "data.filter": (['data.filter=group == "a"'], PLAN, ["data.source={table}"]),
    "data.text": (["data.text=title"], STEPS, ["data.source={table}"]),
    "data.label": (["data.label=group"], PLAN, ["data.source={table}"]),
    "data.labels": (['data.labels=["pos", "neg"]'], PLAN, []),
    "data.kind": (["data.kind=regression"], PLAN, ["data.source={table}", "data.label=stars"]),
    "data.clean.html": (["data.clean.html=false"], PLAN, ["data.source={table}"]),
    "data.clean.control": (["data.clean.control=false"], PLAN, ["data.source={table}"]),
    "data.clean.unicode": (["data.clean.unicode=none"], PLAN, ["data.source={table}"]),
    "data.clean.spaces": (["data.clean.spaces=false"], PLAN, ["data.source={table}"]),
    "data.clean.min_chars": (["data.clean.min_chars=40"], PLAN, ["data.source={table}"]),
    "data.clean.duplicates": (["data.clean.duplicates=false", "data.on_overlap=warn"], PLAN,
                              ["data.source={table}"]),
    "data.on_bad_row": (["data.on_bad_row=skip"], PLAN, ["data.source={broken}"]),
    "data.on_overlap": (["data.on_overlap=warn"], PLAN,
                        ["data.source={table}", "data.clean.duplicates=false",
                         "data.on_overlap=drop"]),
    "data.validation": (["data.validation=16"], PLAN, []),
    "data.test": (["data.test=16"], PLAN, []),
    "data.group": (["data.group=title"], PLAN, ["data.source={table}"]),
    "data.drop_rows": (["data.drop_rows={drop}"], PLAN, ["data.source={table}"]),
    "data.split_seed": (["data.split_seed=7"], STEPS, []),
    "data.stream": (["data.stream=true"], PLAN, STREAM),
    "data.shuffle_buffer": (["data.shuffle_buffer=5"], STEPS, [*STREAM, "data.stream=true"]),
    "data.subset": (["data.subset={train = 20}"], PLAN, []),
    "data.subset_seed": (["data.subset_seed=7"], STEPS, ["data.subset={train = 20}"]),
    "data.max_length": (["data.max_length=8"], PLAN, []),
    "data.truncation": (["data.truncation=left"], STEPS, ["data.max_length=8"]),
    "data.long": (["data.long=head_tail"], STEPS, ["data.max_length=8"]),
    "data.head_tokens": (["data.head_tokens=4"], STEPS, ["data.max_length=8",
                         "data.long=head_tail"]),
    "data.stride": (["data.stride=4"], STEPS, ["data.max_length=8", "data.long=chunks"]),
    "data.max_windows": (["data.max_windows=1"], STEPS, ["data.max_length=8", "data.long=chunks"]),
    "data.window_pool": (["data.window_pool=max"], STEPS, ["data.max_length=8",
                         "data.long=chunks"]),
    "data.cache": (["data.cache=false"], PLAN, []),
    "data.workers": (["data.workers=1"], PLAN, []),
    "train.epochs": (["train.epochs=1"], PLAN, []),
    "train.max_steps": (["train.max_steps=2"], PLAN, []),
    "train.micro_batch_size": (["train.micro_batch_size=8"], PLAN, []),
    "train.accumulate": (["train.accumulate=2"], PLAN, []),
    "train.lr": (["train.lr=0.5"], PLAN, []),
    "train.head_lr": (["train.head_lr=0.5"], PLAN, []),
    "train.layer_decay": (["train.layer_decay=0.5"], PLAN, []),
    "train.unfreeze": (["train.unfreeze=0.5"], PLAN, []),
    "train.weight_decay": (["train.weight_decay=0.5"], PLAN, []),
    "train.decay": (["train.decay=l2"], STEPS, ["train.weight_decay=0.5"]),
    "train.betas": (["train.betas=[0.5, 0.9]"], STEPS, []),
    "train.eps": (["train.eps=0.1"], STEPS, []),
    "train.schedule": (["train.schedule=cosine"], PLAN, []),
    "train.warmup": (["train.warmup=0"], PLAN, []),
    "train.max_grad_norm": (["train.max_grad_norm=1e-9"], STEPS, ["train.eps=0.1"]),
    "train.loss": (["train.loss={own}:focal_loss", "--allow-code"], STEPS, []),
    "train.class_weights": (["train.class_weights=[9.0, 1.0]"], PLAN, []),
    "train.label_smoothing": (["train.label_smoothing=0.4"], PLAN, []),
    "eval.every": (["eval.every=1"], STEPS, []),
    "eval.micro_batch_size": (["eval.micro_batch_size=5"], PLAN, []),
    "eval.metric": (["eval.metric=loss"], SAID, ["eval.every=1"]),
    "eval.baseline": (["eval.baseline=false"], SAID, []),
    "eval.patience": (["eval.patience=1"], STEPS, ["train.lr=1e-30", "eval.every=1"]),
    "decide.calibrate": (["decide.calibrate=false"], SAID, []),
    "decide.min_precision": (["decide.min_precision=0.9"], SAID, []),
    "eval.slices": (["eval.slices=['length']"], SAID, []),
    "precision.dtype": (["precision.dtype=bf16"], STEPS, []),
    "precision.device": (["precision.device=auto"], PLAN, []),
    "precision.tf32": (["precision.tf32=true"], PLAN, []),
    "speed.plain": (["speed.plain=true"], PLAN, []),
    "speed.attention": (["speed.attention=false"], PLAN, []),
    "speed.dropout": (["speed.dropout=false"], PLAN, []),
    "speed.unpad": (["speed.unpad=false"], PLAN, []),
    "speed.frozen": (["speed.frozen=false"], PLAN, ["precision.dtype=bf16"]),
    "speed.lora": (["speed.lora=false"], PLAN, []),
    "speed.linear": (["speed.linear=false"], PLAN, []),
    "speed.qkv": (["speed.qkv=false"], PLAN, []),
    "speed.last_layer": (["speed.last_layer=false"], PLAN, ["head.pool=cls"]),
    "speed.gelu": (["speed.gelu=false"], PLAN, []),
    "speed.norm": (["speed.norm=false"], PLAN, []),
    "speed.native": (["speed.native=off"], PLAN, []),
    "speed.allocator": (["speed.allocator=false"], PLAN, []),
    "samples.texts": (['samples.texts=["another"]'], FILES, []),
    "report.texts": (["report.texts=false"], FILES, []),
    "expect": (['expect=[{text = "good", label = "pos"}]'], SAID, []),
}  # fmt: skip


# of a GPU alone: tests/models/test_fast_cuda.py; of decoders: tests/models/test_fast_decoder.py; of
# several processes: tests/test_parallel.py
ELSEWHERE = {
    "speed.compile", "speed.gate", "speed.rotary",
    *(f"parallel.{key}" for key in
      ("timeout", "strategy", "shard", "tensor", "offload", "gathered_gib")),
}  # fmt: skip

HEAD = """
from torch import Tensor, nn


class Head(nn.Module):
    def __init__(self, hidden_size: int, num_labels: int, dropout: float, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(hidden_size, width), nn.Linear(width, num_labels))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self.layers(hidden[:, 0])
"""


OWN_CODE = """
from examples.own_loss import focal_loss
from examples.own_method import IA3


class Other(IA3):
    pass
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory, tiny_tokenizer):
    """The files that rows of the table name in braces."""
    import torch
    from datasets import Dataset
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("places")
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(intermediate_size=64, **shape)).save_pretrained(folder / "other")
    tiny_tokenizer.save_pretrained(folder / "other")
    (folder / "head.py").write_text(HEAD, encoding="utf-8")
    (folder / "own.py").write_text(OWN_CODE, encoding="utf-8")
    rows = [
        {
            "text": f"a  film<br />cafe\u0301 \x07 number {i % 24}", "title": f"title {i} good",
            "label": ["pos", "neg"][i % 2], "group": "ab"[i // 2 % 2], "stars": i % 4,
        }
        for i in range(40)
    ]  # fmt: skip
    (folder / "table.jsonl").write_text(
        "\n".join(json.dumps(row) for row in rows), encoding="utf-8"
    )
    broken = "\n".join(f"film {i},{'pos' if i % 2 else 'neg'}" for i in range(40))
    (folder / "broken.csv").write_text(f"text,label\n{broken}\n,pos\n", encoding="utf-8")
    (folder / "headless.csv").write_text(broken, encoding="utf-8")
    drop = json.dumps({"rows": ["table.jsonl:3"]})
    (folder / "drop.jsonl").write_text(f"{drop}\n", encoding="utf-8")
    wide = "\n".join(f"café {i},{'pos' if i % 2 else 'neg+pos'}" for i in range(40))
    (folder / "wide.csv").write_text(f"text,label\n{wide}\n", encoding="utf-8")
    from transformers import BertForSequenceClassification

    names = {"id2label": {0: "neg", 1: "pos"}, "label2id": {"neg": 0, "pos": 1}}
    for name in ("first", "second"):
        teacher = BertForSequenceClassification(BertConfig(intermediate_size=64, **shape, **names))
        teacher.save_pretrained(folder / "teacher" / name)
        tiny_tokenizer.save_pretrained(folder / "teacher" / name)
    (folder / "hub").mkdir()
    for split, start in (("train", 0), ("test", 100), ("held", 200)):
        part = [{"text": f"film {start + i}", "label": i % 2} for i in range(20 + start // 50)]
        Dataset.from_list(part).to_parquet(folder / "hub" / f"{split}-00000-of-00001.parquet")
    return {
        "own": folder / "own.py", "other": folder / "other", "head": f"{folder / 'head.py'}:Head",
        "table": folder / "table.jsonl", "broken": folder / "broken.csv",
        "headless": folder / "headless.csv", "wide": folder / "wide.csv",
        "drop": folder / "drop.jsonl",
        "teacher": folder / "teacher", "hub": f"hub:{folder / 'hub'}", "tmp": folder,
    }  # fmt: skip


@pytest.fixture(scope="module")
def before_change(tmp_path_factory):
    """`before_change(path, shows, words)`: what two starts show, equal, made once for all rows that
    begin alike."""
    known = {}

    def show(path, shows, words):
        key = shows, tuple(words)
        if key not in known:
            folder = tmp_path_factory.mktemp("before")
            known[key] = trace(path, folder / "a", shows, words)
            assert known[key] == trace(path, folder / "b", shows, words), "not repeatable"
        return known[key]

    return show


def trace(path, folder, shows, words):
    """What a start with these words shows, at the place where a difference is expected."""
    out = io.StringIO()
    words = [f"run.dir={folder}", *words] + (["--dry-run", "-v"] if shows == PLAN else [])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = train.main(["--config", str(path), *words])
    if shows in (PLAN, SAID):
        shown = out.getvalue().replace(str(folder), "DIR").replace(str(path), "RECIPE")
        shown = re.sub(r"in about [\d.]+ \w+", "in about TIME", shown)
        lines = shown.splitlines()
        # what is taken by the first run of a process, and times, differ
        drop = ("  time", "  memory", "memory: ", "step ", "Generating", "building")
        lines = [line for line in join_wrapped(lines) if line.strip() and not line.startswith(drop)]
        return [line for line in lines if "token cache" not in line or "off" in line]
    assert code == 0, out.getvalue()
    run = folder / "tiny"
    if shows == FILES:
        names = sorted(str(p.relative_to(run)) for p in run.rglob("*") if "events" not in p.name)
        page = write_page(Folder(run)).read_text(encoding="utf-8")
        samples = (run / "samples.json").read_text(encoding="utf-8")
        return names, samples, "Texts are left out" in page
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [{k: v for k, v in line.items() if k != "train/tokens_per_s"} for line in lines]


def join_wrapped(lines):
    """The plan's entries as one line each: what goes on is indented below its text."""
    joined = []
    for line in lines:
        if joined and line.startswith(" " * 16):
            joined[-1] += " " + line.strip()
        else:
            joined.append(line)
    return joined


@pytest.mark.parametrize("key", TABLE)
def test_changing_a_setting_shows(key, recipe, tmp_path, places, before_change):
    change, shows, before = TABLE[key]
    change, before = ([fill(word, places) for word in words] for words in (change, before))
    words = [*([] if shows == PLAN else ["train.max_steps=3"]), *before]
    path = recipe(train={"accumulate": 1}, data={"validation": 8, "test": 8})
    assert trace(path, tmp_path / "c", shows, [*words, *change]) != before_change(
        path, shows, words
    )


def fill(word, places):
    for name, place in places.items():
        word = word.replace("{" + name + "}", str(place))
    return word


def test_every_setting_has_a_row():
    from tests.test_chat_fields import CHATS

    assert {*TABLE, *ELSEWHERE, *CHATS} == set(list_settings())
