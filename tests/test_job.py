"""The wiring's own decisions: the best checkpoint, early stopping, guesses, estimates."""

import math

import pytest

from engine.loop import Progress
from job.finish import main_metric
from job.fit import evaluation_line, note_evaluation
from job.guess import guess_recipe
from job.predictor import name_prediction


def evaluate_all(values, metric="accuracy", patience=None, losses=None):
    progress = Progress()
    for step, value in enumerate(values, start=1):
        progress.step = step
        metrics = {"loss": losses[step - 1] if losses else 1.0, metric: value}
        note_evaluation(progress, metric, metrics, patience)
        if progress.stopped_early:
            break
    return progress


@pytest.mark.parametrize(
    ("values", "metric", "best"),
    [([0.5, 0.9, 0.7], "accuracy", 2), ([0.5, 0.2, 0.7], "loss", 2), ([0.5, 0.5], "accuracy", 1),
     ([math.nan, 0.1], "accuracy", 2), ([0.1, math.nan], "loss", 1)],
)  # fmt: skip
def test_the_best_evaluation_is_the_first_of_the_best_and_never_nan(values, metric, best):
    assert evaluate_all(values, metric).best_step == best


def test_of_equal_accuracies_the_lower_loss_is_the_best():
    assert evaluate_all([0.0, 1.0, 1.0, 1.0], losses=[9, 0.4, 0.1, 0.2]).best_step == 3


def test_patience_stops_after_that_many_evaluations_without_a_better_one():
    progress = evaluate_all([0.5, 0.6, 0.6, 0.55, 0.9], patience=2)
    assert progress.stopped_early
    assert progress.step == 4
    assert progress.best_step == 2


def test_an_evaluation_line_gives_n_and_the_interval():
    metrics = {"loss": 0.5, "accuracy": 0.8, "interval": (0.7, 0.9), "macro_f1": 0.79, "n": 1000}
    line = evaluation_line("test", 3, metrics)
    for part in ("0.8000", "0.7000 to 0.9000", "n 1,000", "step 3"):
        assert part in line
    assert main_metric(metrics) == ("accuracy", 0.8)


def test_regression_is_judged_by_its_loss():
    metrics = {"loss": 0.5, "rmse": 0.7, "mae": 0.6, "r2": 0.1, "n": 4}
    assert "rmse 0.7000" in evaluation_line("test", 3, metrics)
    assert main_metric(metrics) == ("loss", 0.5)


def test_predictions_are_named_by_kind():
    single = name_prediction("t", "single", [0.2, 0.8], ["a", "b"])
    assert (single.label, single.probability) == ("b", 0.8)
    multi = name_prediction("t", "multi", [0.7, 0.9, 0.1], ["a", "b", "c"])
    assert multi.label == "a, b"
    assert name_prediction("t", "multi", [0.2, 0.1], ["a", "b"]).label == "none"
    number = name_prediction("t", "regression", [2.5], [])
    assert (number.label, number.probability) == ("2.5", None)


def test_a_small_table_is_gone_through_more_often(tmp_path):
    path = tmp_path / "my (first) file.csv"
    rows = "\n".join(f"a long review of film {i},{'good' if i % 2 else 'bad'}" for i in range(100))
    path.write_text(f"review,verdict\n{rows}\n")
    recipe, said = guess_recipe(path)
    assert recipe["run"]["name"] == "my_first_file"
    assert recipe["data"]["text"] == "review"
    assert recipe["data"]["label"] == "verdict"
    assert recipe["train"]["epochs"] == 10
    assert any("epochs = 10" in line for line in said)
