"""Reading: files, overrides, --unset; every error at once, in words."""

import re
import subprocess
import sys

import pytest

from configs.fields import list_settings
from configs.read import ConfigError, parse_config, read_config

SMALL = """
[run]
name = "small"
[model]
source = "hub:tiny"
[data]
source = "reviews.csv"
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


def errors_of(path, overrides=(), unset=()):
    """The lines of the ConfigError, by key path."""
    with pytest.raises(ConfigError) as caught:
        read_config(path, overrides, unset)
    lines = str(caught.value).split("\n  ")[1:]
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}


def test_defaults_fill_what_the_file_leaves_out(small):
    config = read_config(small)
    assert config.run.name == "small"
    assert config.train.epochs == 3
    assert config.lora is None
    assert config.data.clean.html is True


def test_settings_need_no_file():
    overrides = ["run.name=x", "model.source=hub:tiny", "data.source=reviews.csv"]
    assert read_config(None, overrides).data.source == "reviews.csv"


def test_missing_keys_are_named_with_what_they_mean():
    assert set(errors_of(None)) == {"run.name", "model.source", "data.source"}
    assert errors_of(None)["run.name"].startswith("missing; allowed: ")


def test_all_errors_of_fields_and_relations_come_at_once(small):
    broken = (
        SMALL
        + """
revision = 3
[head]
pool = "mean"
[train]
lr = "fast"
epochs = 0
rank = 4
[lora]
targets = []
layers = [3, 1]
"""
    )
    small.write_text(broken, encoding="utf-8")
    errors = errors_of(small, ["train.accumulate=0", "eval.evry=3", "run.threads=many"])
    assert set(errors) == {
        "eval.evry",
        "run.threads",
        "data.revision",
        "train.lr",
        "train.epochs",
        "train.accumulate",
        "train.rank",
        "lora.targets",
        "lora.layers",
        "head.pool",
    }
    assert errors["train.lr"] == 'got "fast"; allowed: number above 0'
    assert errors["train.epochs"] == "got 0; allowed: integer from 1"


def test_a_relation_is_silent_where_its_own_setting_is_wrong(small):
    errors = errors_of(small, ["head.pool=mean", "head.kind=nativ"])
    assert set(errors) == {"head.kind"}


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.rank=4", "lora.rank"),
        ("lr=1e-3", "train.lr"),
        ("train.epoch=3", "train.epochs"),
        ("train.learning_rate=1e-3", "train.lr"),
        ("train.batch_size=8", "train.micro_batch_size"),
        ("eval.batch_size=8", "eval.micro_batch_size"),
        ("lora.target_modules=q", "lora.targets"),
        ("trian.weight_decay=0", "train.weight_decay"),
        ("data.claen.html=true", "data.clean.html"),
        ("model.max_length=128", "data.max_length"),
        ("model.pooling=cls", "head.pool"),
    ],
)
def test_unknown_key_names_its_nearest_neighbour(small, override, nearest):
    (message,) = errors_of(small, [override]).values()
    assert f"unknown key; the nearest is {nearest};" in message


def test_unknown_section_names_its_nearest_neighbour(small):
    small.write_text(SMALL + "[trian]\nlr = 1\n[data.claen]\nhtml = true\n", encoding="utf-8")
    errors = errors_of(small)
    assert errors["trian"].startswith("unknown section; the nearest is train;")
    assert "the nearest is data.clean;" in errors["data.claen"]


def test_a_section_that_is_a_value_is_explained(small):
    small.write_text("lora = 3\n" + SMALL + "clean = false\n", encoding="utf-8")
    errors = errors_of(small)
    assert errors["lora"] == "got 3; allowed: a section [lora], as in lora.rank"
    assert errors["data.clean"].startswith("got false; allowed: a section [data.clean]")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("run.name=slow", "slow"),
        ('run.name="slow"', "slow"),
        ("run.name='slow'", "slow"),
        ("run.name=2024", "2024"),
        ("run.name=true", "true"),
        ('data.filter=source == "imdb"', 'source == "imdb"'),
        ("data.filter='a' == 'b'", "'a' == 'b'"),
        ("model.revision=1e5", "1e5"),
        ("train.lr=3e-4", 3e-4),
        ("train.lr=1", 1.0),
        ("train.epochs=2", 2),
        ("model.compile=true", True),
        ("eval.every=epoch", "epoch"),
        ('eval.every="epoch"', "epoch"),
        ("eval.every=100", 100),
        ("train.class_weights=balanced", "balanced"),
        ("train.class_weights=[1, 2.5]", [1.0, 2.5]),
        ("train.warmup=0.1", 0.1),
        ("train.warmup=10", 10),
        ("data.text=review", "review"),
        ('data.text=["a", "b"]', ["a", "b"]),
        ("data.text=1", "1"),
        ("data.source=data/*.csv", "data/*.csv"),
        ('data.source="[ab].csv"', "[ab].csv"),
        ('data.source={train = "a.csv", test = "b.csv"}', {"train": "a.csv", "test": "b.csv"}),
        ("data.source.train=a.csv", {"train": "a.csv"}),
        ('data.source.train=["a.csv", "b.csv"]', {"train": ["a.csv", "b.csv"]}),
        ("data.subset.train=1000", {"train": 1000}),
        ("data.clean.html=false", False),
        (" train.betas = [0.9, 0.98] ", [0.9, 0.98]),
    ],
)
def test_override_typing(small, override, value):
    key = override.partition("=")[0].strip()
    table = key.rpartition(".")[0]
    got = read_config(small, [override])
    for part in (table if table in ("data.source", "data.subset") else key).split("."):
        got = getattr(got, part)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("overrides", "args"),
    [
        (["head.args.width=64", "head.args.act=gelu"], {"width": 64, "act": "gelu"}),
        (["head.args.sizes=[64, 32]", "head.args.gate=true"], {"sizes": [64, 32], "gate": True}),
        (["head.args.scale=0.5", 'head.args.word="3"'], {"scale": 0.5, "word": "3"}),
    ],
)
def test_own_heads_take_named_arguments(small, overrides, args):
    assert read_config(small, ["head.kind=my.py:MyHead", *overrides]).head.args == args


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("train.lr=.001", "write it like 0.001"),
        ("train.epochs=three", "write it like 3"),
        ("model.compile=True", "write it like true"),
        ("train.betas=0.9, 0.98", 'write it like ["a", "b"]'),
        ("lora.targets=[query, value]", '\'KEY=["a", "b"]\''),
        ("train.lr=", "write it like 0.001"),
        ("train.lr=1\nepochs = 5", "not TOML"),
    ],
)
def test_a_value_that_is_not_toml_says_how_to_write_it(small, override, advice):
    assert advice in errors_of(small, [override])[override.partition("=")[0]]


@pytest.mark.parametrize("override", ["lr", "train.lr", "train", "train=3", "3e-4"])
def test_an_override_without_key_or_value_is_explained(small, override):
    errors = errors_of(small, [override, "train.lr=0"])
    assert f"override {override!r}" in errors
    assert "train.lr" in errors  # what else is wrong is still told


def test_an_override_adds_a_section_and_says_what_it_still_needs(small):
    assert read_config(small, ["lora.targets=all-linear"]).lora.targets == "all-linear"
    assert set(errors_of(small, ["lora.rank=4"])) == {"lora.targets"}


def test_the_last_override_of_a_key_wins(small):
    assert read_config(small, ["train.epochs=1", "train.epochs=2"]).train.epochs == 2


def test_unset_removes_sections_keys_and_entries(small):
    small.write_text(
        SMALL + 'subset = {train = 5, test = 6}\n[lora]\ntargets = ["q"]\n[train]\nlr = 1.0\n',
        encoding="utf-8",
    )
    config = read_config(small, unset=["lora", "train.lr", "data.subset.test", "head.pool"])
    assert config.lora is None
    assert config.train.lr == 2e-5
    assert config.data.subset == {"train": 5}


def test_unset_comes_before_overrides(small):
    small.write_text(SMALL + "[lora]\nrank = 2\ntargets = ['q']\n", encoding="utf-8")
    config = read_config(small, ["lora.targets=all-linear"], unset=["lora"])
    assert (config.lora.rank, config.lora.targets) == (8, "all-linear")


def test_unset_of_something_unknown_names_its_neighbour(small):
    errors = errors_of(small, unset=["lorra", "train.lrr"])
    assert "the nearest is lora" in errors["--unset lorra"]
    assert "the nearest is train.lr" in errors["--unset train.lrr"]


@pytest.mark.parametrize("value", ['"3"', "true", "3.0", "2024-01-01", "[3]"])
def test_nothing_is_turned_into_an_integer(small, value):
    assert "train.epochs" in errors_of(small, [f"train.epochs={value}"])


@pytest.mark.parametrize("value", ["true", "inf", "nan", '"1"'])
def test_a_number_is_finite_and_no_flag(small, value):
    assert "train.lr" in errors_of(small, [f"train.lr={value}"])


def test_sections_are_frozen(small):
    config = read_config(small)
    with pytest.raises(ValueError, match="frozen"):
        config.train.lr = 1.0


def test_broken_toml_names_file_line_and_column(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text('[run]\nname = "x\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.toml, line 2, column \d+: not TOML"):
        read_config(path)
    path.write_text("[run]\nname =", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.toml, line 2, column 7: not TOML"):
        read_config(path)


def test_bytes_that_are_not_utf8_name_line_and_column(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes('[run]\nname = "caf\xe9"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml, line 2, column 12: .*UTF-8"):
        read_config(path)


def test_a_missing_file_names_the_nearest_in_its_folder(small):
    with pytest.raises(ConfigError, match=re.escape(str(small))):
        read_config(small.with_name("smal.toml"))
    with pytest.raises(ConfigError, match="there is no folder"):
        read_config(small.parent / "nowhere" / "small.toml")


def test_parse_config_leaves_its_tables_alone():
    tables = {"run": {"name": "x"}, "model": {"source": "m"}, "data": {"source": "d"}}
    assert parse_config(tables).run.name == "x"
    assert tables == {"run": {"name": "x"}, "model": {"source": "m"}, "data": {"source": "d"}}


CONTRAST = ["contrast.pairs=8", "head.kind=linear"]
STREAM = ["data.stream=true", "data.clean.duplicates=false", "data.on_overlap=drop"]
STREAM += ["eval.baseline=false"]
RELATIONS = [
    (["parallel.strategy=ddp", "parallel.shard=hybrid"], "parallel.shard"),
    (["parallel.strategy=ddp", "parallel.offload=true"], "parallel.offload"),
    (["precision.device=cpu", "parallel.offload=true"], "parallel.offload"),
    (["task.kind=chat", "data.label=stars"], "data.label"),
    (["task.kind=chat", "model.source=ngrams"], "model.source"),
    (["task.kind=chat", "eval.metric=mcc"], "eval.metric"),
    (["task.kind=chat", "data.packing=true", "prompt.tokens=2"], "data.packing"),
    (["task.kind=chat", "data.learn=last", "data.overlong=split"], "data.overlong"),
    (["data.learn=last"], "data.learn"),
    (["head.pool=mean"], "head.pool"),
    (["head.kind=linear", "head.args.width=3"], "head.args"),
    (["lora.targets=all-linear", "model.train=all"], "model.train"),
    (["lora.targets=all-linear", "model.train=bias"], "model.train"),
    (["lora.targets=all-linear", "adapter.size=4"], "adapter"),
    (["model.source=ngrams", "head.kind=linear"], "head.kind"),
    (["lora.targets=all-linear", "lora.layers=[3, 1]"], "lora.layers"),
    (["model.source=ngrams", "bag.rows=all"], "bag"),
    (["distill.teacher=t", "distill.hidden=1", "model.train=head"], "distill.hidden"),
    (["distill.teacher=t", "distill.hidden=1", "model.compile=true"], "model.compile"),
    (["distill.teacher=t", "distill.hidden=1", "prompt.tokens=2"], "distill.hidden"),
    (["distill.teacher=t", "distill.weight=0"], "distill.weight"),
    (["distill.teacher=t", "distill.student=ngrams"], "model.source"),
    (["model.source=ngrams", "distill.teacher=t", "distill.hidden=1"], "distill.hidden"),
    ([*CONTRAST, "data.kind=multi"], "contrast"),
    ([*CONTRAST, "model.train=head"], "contrast"),
    ([*CONTRAST, "train.micro_batch_size=7"], "train.micro_batch_size"),
    ([*CONTRAST, "model.source=ngrams", "head.kind=native"], "contrast"),
    (["contrast.pairs=8"], "head.kind"),
    ([*CONTRAST, "model.compile=true"], "model.compile"),
    ([*CONTRAST, "train.class_weights=balanced"], "train.class_weights"),
    ([*STREAM, "data.clean.duplicates=true"], "data.clean.duplicates"),
    ([*STREAM, "contrast.pairs=8", "head.kind=linear"], "contrast"),
    ([*STREAM, "model.source=ngrams"], "model.source"),
    ([*STREAM, "data.on_overlap=refuse"], "data.on_overlap"),
    ([*STREAM, "data.subset={train = 20}"], "data.subset"),
    ([*STREAM, "train.class_weights=balanced"], "train.class_weights"),
    ([*STREAM, "task.kind=chat", "data.overlong=split"], "data.overlong"),
    (["data.shuffle_buffer=5"], "data.shuffle_buffer"),
    (['data.source={test = "a.csv"}'], "data.source"),
    (["data.source=hub:x", 'data.splits={test = "test"}'], "data.splits"),
    (["data.source=package:p/x.csv", "data.config=en"], "data.config"),
    (['data.source=["a.csv", "b.csv"]', "data.revision=main"], "data.revision"),
    (["model.source=run:runs/x", "model.revision=main"], "model.revision"),
    (["data.validation=0.5", "data.test=0.5"], "data.validation"),
    (["train.loss=my.py:loss", "train.label_smoothing=0.1"], "train.label_smoothing"),
    (["data.text=label"], "data.text"),
    (["data.group=label"], "data.group"),
    (["data.kind=single", 'data.label=["a", "b"]'], "data.label"),
    (["data.label_separator=;", "data.kind=single"], "data.label_separator"),
    (["data.label_separator=;", 'data.label=["a", "b"]'], "data.label_separator"),
    (['data.labels=["a", "a"]'], "data.labels"),
    (["data.long=head_tail", 'data.text=["a", "b"]'], "data.long"),
    (["data.long=head_tail", "model.source=ngrams"], "data.long"),
    (["data.truncation=left", "model.source=ngrams"], "data.truncation"),
    (["distill.teacher=t", "distill.student=layers:2"], "model.source"),
    (
        ["distill.teacher=hub:tiny", "distill.student=layers:2", "model.revision=v1"],
        "model.revision",
    ),
    (["data.long=head_tail", "data.truncation=left"], "data.truncation"),
    (["data.head_tokens=9"], "data.head_tokens"),
    (["data.long=head_tail", "data.max_length=9", "data.head_tokens=9"], "data.head_tokens"),
    (["data.stride=9"], "data.stride"),
    (["data.long=head_tail", "data.max_windows=9"], "data.max_windows"),
    (["data.window_pool=max"], "data.window_pool"),
    (["data.long=chunks", "head.kind=mlp", "data.max_length=9", "data.stride=9"], "data.stride"),
    (["data.long=chunks"], "data.long"),
    (["data.kind=regression", 'data.labels=["a", "b"]'], "data.labels"),
    (["data.kind=regression", "eval.metric=accuracy"], "eval.metric"),
    (["data.kind=multi", "eval.metric=r2"], "eval.metric"),
    (["data.kind=multi", "eval.metric=mcc"], "eval.metric"),
    (["data.kind=regression", "eval.metric=auroc"], "eval.metric"),
    (['eval.slices=["a", "b", "a"]'], "eval.slices"),
    (['expect=[{text = "a"}]'], "expect"),
    (['expect=[{text = "a", label = "b", not_label = "c"}]'], "expect"),
    (['expect=[{text = "a", not_label = "b", min_probability = 0.5}]'], "expect"),
    (['expect=[{text = "a", label = "b", within = 0.5}]'], "expect"),
    (["data.kind=regression", "train.class_weights=balanced"], "train.class_weights"),
    (['data.labels=["a", "b"]', "train.class_weights=[1, 2, 3]"], "train.class_weights"),
    (["data.kind=regression", "train.label_smoothing=0.1"], "train.label_smoothing"),
]


@pytest.mark.parametrize(("overrides", "key"), RELATIONS)
def test_broken_relation_is_reported_under_one_key(small, overrides, key):
    assert set(errors_of(small, overrides)) == {key}


@pytest.mark.parametrize(
    "overrides",
    [
        *(["data.kind=regression", f"eval.metric={name}"] for name in ("rmse", "mae", "spearman")),
        ["data.kind=multi", "train.class_weights=balanced"],
        ["data.kind=single", "eval.metric=loss"],
        *([f"eval.metric={name}"] for name in ("mcc", "auroc", "rmse")),
        *(["data.kind=multi", f"eval.metric={name}"] for name in ("weighted_f1", "auroc")),
        ['expect=[{text = "a", label = 3, within = 0.5}, {text = "a", label = []}]'],
    ],
)
def test_what_goes_together_is_taken(small, overrides):
    assert read_config(small, overrides)


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ('{txt = "a", label = "b"}', ["table 2", "unknown key 'txt'", "not_label"]),
        ('{label = "b"}', ["table 2", "text is missing"]),
        ('{text = "a", label = true}', ["table 2", "label", "True"]),
        ('{text = "a", label = "b", min_probability = 2}', ["min_probability", "up to 1"]),
        ("3", ["table 2", "got 3"]),
    ],
)
def test_a_fault_in_an_expectation_names_its_table_and_key(small, table, parts):
    errors = errors_of(small, [f'expect=[{{text = "a", label = "b"}}, {table}]'])
    assert set(errors) == {"expect"}
    for part in parts:
        assert part in errors["expect"]


def test_a_student_that_starts_from_nothing_needs_no_source(small):
    words = ["distill.teacher=t", "distill.student=ngrams"]
    assert read_config(small, words, unset=["model.source"]).model.source == "ngrams"


def test_every_relation_is_tried_above():
    from configs.relations import RULES

    assert len(RELATIONS) == len(RULES) + 19  # some are tried twice, expectations four times


def test_nothing_heavy_is_imported_to_read_a_config():
    heavy = {"torch", "transformers", "datasets", "numpy", "models", "data", "engine", "report"}
    code = f"import sys, configs.read; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_key_path_is_lost_in_the_flat_table():
    keys = list(list_settings())
    assert len(keys) == len(set(keys))
    assert {"run.name", "lora.rank", "data.clean.html", "samples.texts"} <= set(keys)
