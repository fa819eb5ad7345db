"""Every contestant of every task has a config that can be read."""

import pytest
from ablation import PARTS, PLAIN, WHOLE, overrides_of
from tasks import COMPARISONS, CONTESTANTS, TASKS, make_config, why_not


@pytest.mark.parametrize(
    ("task", "contestant"),
    [(task, contestant) for task, chosen in TASKS.items() for contestant in chosen.contestants],
)
def test_contestants_differ_in_precision_and_packing_alone(task, contestant):
    config = make_config(task, contestant, "bf16")
    stock = make_config(task, "stock", "bf16").model_dump(exclude={"precision"})
    packs = (task, contestant) == ("chat512", "openloop")
    assert config.data.packing == packs
    stock["data"]["packing"] = packs
    assert config.model_dump(exclude={"precision"}) == stock
    wanted = {"openloop": "auto", "openloop_unpacked": "auto", "stock": "fp32"}
    assert config.precision.dtype == wanted.get(contestant, "bf16")
    assert contestant in CONTESTANTS


def test_only_the_lora_tasks_have_adapters():
    adapted = {task: make_config(task, "stock", "fp32").lora is not None for task in TASKS}
    assert {task for task, has in adapted.items() if not has} == {"full256", "gpt2_128"}


def test_bf16_is_not_run_without_units_for_it():
    assert why_not("stock_bf16", "fp32")
    assert why_not("stock_bf16", "bf16") is None
    assert why_not("stock_tuned", "fp32") is None


def test_trl_is_left_out_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr("tasks.find_spec", lambda name: None)
    assert (
        why_not("trl", "fp32") == why_not("trl_packed", "fp32") == ("not run: trl is not installed")
    )
    assert why_not("stock_flat", "fp32") is None


def test_the_accuracy_comparison_changes_what_it_names():
    changes = COMPARISONS["lora256"].changes
    config = make_config("lora256", "openloop", "fp32", changes, ["run.seed=2"])
    assert (config.run.seed, config.train.epochs, config.eval.every) == (2, 1, 40)
    assert config.data.max_length == 256


@pytest.mark.parametrize("task", COMPARISONS)
def test_who_is_compared_takes_part_and_trains_on_the_same_rows(task):
    compared = COMPARISONS[task]
    assert set(compared.names) <= set(TASKS[task].contestants)
    first, second = (
        make_config(task, name, "fp32", compared.changes).model_dump(exclude={"precision"})
        for name in compared.names
    )
    assert first == second


def test_an_ablation_switches_one_part_off():
    def speed(name):
        config = make_config("lora256", "openloop", "fp32", overrides=overrides_of(name))
        return config.speed.model_dump()

    whole, plain = speed(WHOLE), speed(PLAIN)
    for part in PARTS:
        without = speed(f"without {part}")
        assert {key for key in whole if whole[key] != without[key]} == {part}
    assert {key for key in whole if whole[key] != plain[key]} == set(PARTS)
