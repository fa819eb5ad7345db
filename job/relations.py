"""What must hold between settings, data and model, and can only be told once they are there."""

from configs.schema import Config
from data.prepare import Data
from job.contrast import why_unpaired


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
    metric, number = config.eval.metric, data.kind == "regression"
    if number and metric in ("accuracy", "macro_f1"):
        problems.append(
            f"eval.metric is {metric}; the labels are numbers, which have none: use rmse, mae, r2, "
            "spearman or loss, or data.kind = 'single' if they are classes"
        )
    if not number and metric in ("rmse", "mae", "r2", "spearman"):
        problems.append(
            f"eval.metric is {metric}; the labels are classes, which have none: use accuracy, "
            "macro_f1 or loss, or data.kind = 'regression' if they are numbers to be predicted"
        )
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
