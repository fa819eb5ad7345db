"""What must hold between settings of what is measured: [eval] and [[expect]]; the rules are as in
relations.py."""

from collections.abc import Mapping
from typing import Any

from configs.relations_chat import OF_TOKENS

Settings = Mapping[str, Any]
Verdict = str | None
_CLASSES = ("auto", "loss", "accuracy", "macro_f1", "weighted_f1", "auroc", "average_precision")
METRICS = {  # what eval.metric may be, by the labels' kind
    "single": (*_CLASSES, "balanced_accuracy", "mcc"),
    "multi": _CLASSES,
    "regression": ("auto", "loss", "rmse", "mae", "r2", "spearman"),
}


def metrics_go_with_the_kind(s: Settings) -> Verdict:
    kind, metric = s["data.kind"], s["eval.metric"]
    if kind == "auto" or metric in METRICS[kind] or metric in OF_TOKENS:
        return None  # of tokens: not of labelled texts at all, which another rule says
    other = "" if kind == "regression" else '; or data.kind = "regression", to predict numbers'
    if metric in METRICS["single"] and kind == "multi":
        other = "; it is for one class a row"
    allowed = ", ".join(f'"{name}"' for name in METRICS[kind])
    return f'eval.metric: got "{metric}" beside data.kind = "{kind}"; allowed: {allowed}{other}'


def slices_differ(s: Settings) -> Verdict:
    names = s["eval.slices"]
    twice = sorted({name for name in names if names.count(name) > 1})
    return f'eval.slices: "{twice[0]}" stands there twice' if twice else None


def an_expectation_says_what(s: Settings) -> Verdict:
    """Of each [[expect]]: one of label and not_label, and what goes with it."""
    for number, one in enumerate(s["expect"], start=1):
        if fault := fault_of(one):
            return f"expect: table {number} ({str(one['text'])[:40]!r}): {fault}"
    return None


def fault_of(one: Mapping[str, Any]) -> str | None:
    """What is wrong with an expectation by itself; its keys are as in [[expect]]."""
    label, other = one.get("label"), one.get("not_label")
    if (label is None) == (other is None):
        both = "both label and not_label" if label is not None else "neither label nor not_label"
        return f"got {both}; allowed: one of them"
    if one.get("min_probability") is not None and label is None:
        return "got min_probability beside not_label; it is the least probability of label"
    if one.get("min_probability") is not None and label == []:
        return "got min_probability beside label = [], which names no class that could have one"
    if one.get("min_probability") is not None and one.get("within") is not None:
        return "got min_probability beside within; one is of classes, the other of numbers"
    if one.get("within") is not None and not isinstance(label, int | float):
        return "got within, which says how far a number may be off, and label is no number"
    return None


EVAL_RULES = (metrics_go_with_the_kind, slices_differ, an_expectation_says_what)
