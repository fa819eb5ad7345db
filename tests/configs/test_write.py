"""Writing a config and comparing two: what is written comes back, what differs is told."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.fields import list_settings
from configs.read import difference, parse_config, read_config, trajectory, write_config
from configs.schema import METHODS

NEEDED = {"run": {"name": "x"}, "model": {"source": "hub:tiny"}, "data": {"source": "a.csv"}}

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
count = st.integers(1, 10**9)
share = st.floats(0, 1, exclude_max=True)
positive = st.floats(0, exclude_min=True, allow_infinity=False)
rows = st.one_of(count, st.floats(0, 0.4, exclude_min=True))
plain = st.one_of(text, st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9), st.booleans())
tables = st.fixed_dictionaries(
    {
        "run": st.fixed_dictionaries({"name": st.just("x")}, optional={"dir": text, "keep": count}),
        "model": st.fixed_dictionaries({"source": text}, optional={"dropout": share}),
        "head": st.fixed_dictionaries(
            {"kind": st.just("my.py:Head")},
            optional={"args": st.dictionaries(text, st.one_of(plain, st.lists(plain)))},
        ),
        "data": st.fixed_dictionaries(
            {"source": st.one_of(text, st.lists(text, min_size=1), st.just({"train": "a"}))},
            optional={
                "validation": rows,
                "test": rows,
                "filter": text,
                "subset": st.dictionaries(st.sampled_from(["train", "test"]), count),
                "clean": st.fixed_dictionaries({}, optional={"html": st.booleans()}),
            },
        ),
        "train": st.fixed_dictionaries(
            {}, optional={"lr": positive, "warmup": st.one_of(st.integers(0, 99), share)}
        ),
        "samples": st.fixed_dictionaries({}, optional={"texts": st.lists(text)}),
    },
    optional={"lora": st.fixed_dictionaries({"targets": st.lists(text, min_size=1)})},
)


@settings(max_examples=60, deadline=None)
@given(values=tables)
def test_a_written_config_is_read_back_equal(values, tmp_path_factory):
    config = parse_config(values)
    path = tmp_path_factory.getbasetemp() / "written.toml"
    write_config(config, path)
    again = read_config(path)
    assert again == config
    assert json.dumps(trajectory(again)) == json.dumps(trajectory(config))  # types as well


def test_trajectory_holds_the_marked_settings_only():
    config = parse_config({**NEEDED, "lora": {"targets": ["q"]}})
    marked = {key for key, setting in list_settings().items() if setting.trajectory}
    optional = ("distill.", "bag.", "contrast.")
    absent = (*optional, *(f"{name}." for name in METHODS if name != "lora"))
    assert set(trajectory(config)) == {key for key in marked if not key.startswith(absent)}
    assert "run.name" not in marked
    assert "train.lr" in marked


def test_trajectory_without_lora_has_no_lora_settings():
    assert not [key for key in trajectory(parse_config(NEEDED)) if key.startswith("lora.")]


def test_trajectory_survives_json():
    values = trajectory(parse_config(NEEDED))
    assert difference(json.loads(json.dumps(values)), values) == []


def test_difference_names_each_key_with_both_values():
    old = parse_config({**NEEDED, "train": {"lr": 1e-3, "head_lr": 0.1}})
    new = parse_config({**NEEDED, "train": {"lr": 3e-4}, "lora": {"targets": ["q"], "rank": 4}})
    lines = difference(trajectory(old), trajectory(new))
    assert "train.lr: 0.001 -> 0.0003" in lines
    assert "train.head_lr: 0.1 -> not set" in lines
    assert "lora.rank: not set -> 4" in lines
    assert not [line for line in lines if line.startswith("lora.layers")]


@pytest.mark.parametrize("overrides", [["run.name=y"], ["run.keep=5"], ["data.workers=2"]])
def test_settings_that_do_not_change_the_run_make_no_difference(overrides, tmp_path):
    config = parse_config(NEEDED)
    write_config(config, tmp_path / "config.toml")
    other = read_config(tmp_path / "config.toml", overrides)
    assert other != config
    assert difference(trajectory(config), trajectory(other)) == []
