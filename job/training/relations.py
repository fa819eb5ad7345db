"""What must hold between settings, data and model, and can only be told once they are there."""

from configs.relations_eval import METRICS
from configs.schema import Config
from data.prepare import Data
from engine.curves import MOST_CURVES
from job.testing.expect import recipe_faults
from job.training.contrast import why_unpaired


def metric_problems(config: Config, data: Data) -> list[str]:
    """What speaks against the metric that is to decide, and against the slices."""
    metric, kind, counts = config.eval.metric, data.kind, data.report.labels.get("validation", {})
    problems, rows = [], data.report.splits.get("validation", 0)
    allowed = ", ".join(METRICS[kind][1:])
    if metric in METRICS[kind] and metric in ("auroc", "average_precision"):
        if len(data.label_names) > MOST_CURVES:
            problems.append(
                f"eval.metric is {metric}, which is counted for at most {MOST_CURVES} classes; "
                f"there are {len(data.label_names):,}: use another of {allowed}"
            )
        elif rows and not any(0 < n < rows for n in counts.values()):
            problems.append(
                f"eval.metric is {metric}, which sets rows of a class against others; the {rows:,} "
                "validation rows are all alike: bring others (data.validation), or use another "
                f"of {allowed}"
            )
    if kind == "regression" and metric not in METRICS[kind]:
        problems.append(
            f"eval.metric is {metric}; the labels are numbers, which have none: use {allowed}, or "
            "data.kind = 'single' if they are classes"
        )
    elif metric in METRICS["regression"] and metric not in METRICS[kind]:
        problems.append(
            f"eval.metric is {metric}; the labels are classes, which have none: use {allowed}, or "
            "data.kind = 'regression' if they are numbers to be predicted"
        )
    elif metric not in METRICS[kind]:
        problems.append(
            f"eval.metric is {metric}, which is for one class a row; a row can have several here: "
            f"use {allowed}"
        )
    if "label" in config.eval.slices and kind != "single":
        problems.append(
            "eval.slices: label is for one class a row; remove it, or name a column of the rows"
        )
    return problems


def check_relations(config: Config, data: Data, max_positions: int, taken: int) -> None:
    """Relations that only the data and the model can tell; the run's method has `taken` positions
    of the model's already. Raises ValueError with all of them."""
    problems = []
    if config.data.max_length > max_positions:
        problems.append(
            f"data.max_length is {config.data.max_length}; {config.model.source} has "
            f"{max_positions} positions{f' beside the {taken} that its method takes' * bool(taken)}"
            ": use at most that"
        )
    problems += metric_problems(config, data)
    problems += recipe_faults(config, data.kind, data.label_names)
    number = data.kind == "regression"
    if number and config.precision.device == "mps":
        problems.append(
            "precision.device is mps, which has no 64-bit numbers; figures of numbers need them: "
            "use cpu"
        )
    if number and config.train.class_weights is not None:
        problems.append(
            "train.class_weights weighs classes; the labels are numbers: remove it (--unset "
            "train.class_weights), or set data.kind = 'single' if they are classes"
        )
    if data.kind != "single" and config.train.label_smoothing:
        problems.append(
            f"train.label_smoothing goes with one class a row; the labels are {data.kind}: "
            "set it to 0"
        )
    if config.contrast is not None and (reason := why_unpaired(data)):
        problems.append(f"[contrast] draws pairs of rows: {reason} (--unset contrast)")
    if "validation" not in data.splits and config.eval.patience is not None:
        problems.append("eval.patience needs a validation split; data.validation is 0")
    if config.decide.min_precision is not None:
        if number:
            problems.append(
                "decide.min_precision lets uncertain classes be unsure; the labels are numbers: "
                "remove it (--unset decide.min_precision)"
            )
        elif "validation" not in data.splits:
            problems.append(
                "decide.min_precision is told from validation rows; data.validation is 0"
            )
    if problems:
        raise ValueError("\n".join(problems))
