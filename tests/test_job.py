"""The wiring's own decisions: the best checkpoint, early stopping, guesses, estimates."""

import math

import pytest
import torch

from engine.decision import Decision
from engine.plan import Progress
from job.checking.guess import guess_recipe
from job.fit import note_evaluation
from job.predicting.naming import name_predictions
from job.reporting.card import card_results, main_metric
from job.training.loss import keep_target
from models.args import ModelArgs
from report.evaluation import evaluation_line, result_line


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
     ([math.nan, 0.1], "accuracy", 2), ([0.1, math.nan], "loss", 1),
     ([5e5, 2e5, 7e5], "rmse", 2), ([5e5, 2e5, 7e5], "mae", 2), ([-23.0, 0.2, -1.0], "r2", 2),
     ([-0.5, 0.9, 0.0], "spearman", 2), ([0.2, 0.9, 0.7], "macro_f1", 2)],
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


@pytest.mark.parametrize(
    ("rmse", "shown"),
    [(183204.4, "183,204"), (0.7, "0.7"), (0.01234, "0.01234"), (1e9, "1,000,000,000")],
)
def test_a_regression_leads_with_r2_and_the_error_in_the_labels_unit(rmse, shown):
    metrics = {"loss": 0.5, "rmse": rmse, "mae": rmse, "r2": 0.1, "spearman": 0.4, "n": 4}
    line = evaluation_line("test", 3, metrics)
    assert line.startswith(f"test at step 3: r2 0.1000, rmse {shown}, mae {shown}, spearman 0.4000")
    assert line.endswith("loss 0.5000, n 4")
    assert main_metric(metrics) == ("r2", 0.1)
    assert [result.metric for result in card_results(metrics)][:2] == ["r2", "rmse"]
    assert result_line({"test": metrics}) == f"Test r2 0.1000, rmse {shown} (n 4)."


OWN = ModelArgs(source="x", kind="regression", num_labels=1, target_mean=77.0, target_deviation=7.0)


@pytest.mark.parametrize(
    ("kept", "taken"),
    [
        (None, False), ((75.0, 6.0), True), ((77.0, 69.0), True), ((77.0, 0.71), True),
        ((0.0, 1.0), False), ((6e5, 2e5), False), ((77.0, 71.0), False), ((77.0, 0.69), False),
    ],
)  # fmt: skip
def test_the_unit_of_a_taken_over_head_is_kept_unless_the_labels_are_in_another(kept, taken):
    args, notes = keep_target(OWN, kept)
    unit = (args.target_mean, args.target_deviation)
    assert unit == (kept if taken else (77.0, 7.0))
    assert len(notes) == (kept is not None)
    if kept is not None and not taken:
        assert "in another unit" in notes[0]


def test_predictions_are_named_by_kind():
    def name(kind, names, *logits):
        return name_predictions(
            ["t"], Decision(kind), torch.tensor([logits], dtype=torch.float64), names
        )[0]

    single = name("single", ["a", "b"], 0.0, 2.0)
    assert (single.label, single.labels) == ("b", ())
    assert single.probability == pytest.approx(1 / (1 + math.exp(-2)))
    multi = name("multi", ["a", "b", "c"], 1.0, 2.0, -1.0)
    assert (multi.label, multi.probability, multi.labels) == ("a, b", None, ("a", "b"))
    assert name("multi", ["a", "b", "c"], -1.0, -2.0, -1.0).label == "none"

    def named(value):
        return name("regression", [], value)

    number = named(2.5)
    assert (number.label, number.probability) == ("2.5", None)
    labels = [named(x).label for x in (183204.4, 0.012346, -2e9)]
    assert labels == ["183204", "0.01235", "-2000000000"]  # numbers to programs too
    assert named(183204.4).probabilities == {"value": 183204.4}


def test_a_small_table_is_gone_through_more_often(tmp_path):
    path = tmp_path / "my (first) file.csv"
    rows = "\n".join(f"a long review of film {i},{'good' if i % 2 else 'bad'}" for i in range(100))
    path.write_text(f"review,verdict\n{rows}\n", encoding="utf-8")
    recipe, said = guess_recipe(path, {"lora.rank": "8"})
    assert recipe["run"]["name"] == "my_first_file"
    assert recipe["data"]["text"] == "review"
    assert recipe["data"]["label"] == "verdict"
    assert recipe["train"]["epochs"] == 10
    assert any("epochs = 10" in line for line in said)
