"""Every contestant of every task has a config that can be read."""

import pytest
from ablation import PARTS, PLAIN, WHOLE, overrides_of
from tasks import ACCURACY, CONTESTANTS, TASKS, make_config, why_not


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("contestant", CONTESTANTS)
def test_contestants_differ_in_precision_alone(task, contestant):
    config = make_config(task, contestant, "bf16")
    stock = make_config(task, "stock", "bf16")
    assert config.model_dump(exclude={"precision"}) == stock.model_dump(exclude={"precision"})
    wanted = {"openloop": "auto", "stock": "fp32", "stock_bf16": "bf16", "stock_tuned": "bf16"}
    assert config.precision.dtype == wanted[contestant]


def test_only_the_lora_tasks_have_adapters():
    adapted = {task: make_config(task, "stock", "fp32").lora is not None for task in TASKS}
    assert adapted == {"lora256": True, "lora512": True, "full256": False, "eval512": True}


def test_bf16_is_not_run_without_units_for_it():
    assert why_not("stock_bf16", "fp32")
    assert why_not("stock_bf16", "bf16") is None
    assert why_not("stock_tuned", "fp32") is None


def test_the_accuracy_comparison_changes_what_it_names():
    config = make_config("lora256", "openloop", "fp32", ACCURACY, ["run.seed=2"])
    assert (config.run.seed, config.train.epochs, config.eval.every) == (2, 1, 40)
    assert config.data.max_length == 256


def test_an_ablation_switches_one_part_off():
    def speed(name):
        config = make_config("lora256", "openloop", "fp32", overrides=overrides_of(name))
        return config.speed.model_dump()

    whole, plain = speed(WHOLE), speed(PLAIN)
    for part in PARTS:
        without = speed(f"without {part}")
        assert {key for key in whole if whole[key] != without[key]} == {part}
    assert {key for key in whole if whole[key] != plain[key]} == set(PARTS)
