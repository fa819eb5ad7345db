"""What must hold between settings: one function a rule, listed at the end.

A rule gets the settings by dotted key (plus, for each optional section, whether there is one, and
as "ngrams" whether the source is a bag of n-grams) and returns "KEY: what is wrong and what to do",
or None. Keys whose own value is not valid are missing from the mapping: a rule that needs one stops
with KeyError and is skipped, the others still speak.
"""

from collections.abc import Mapping
from typing import Any

from configs.long_texts import LONG_TEXTS
from configs.relations_bag import BAG_RULES
from configs.relations_chat import CHAT_RULES
from configs.relations_contrast import CONTRAST_RULES
from configs.relations_distill import DISTILL_RULES
from configs.relations_eval import EVAL_RULES
from configs.relations_parallel import PARALLEL_RULES
from configs.relations_stream import STREAM_RULES
from configs.schema import METHODS

Settings = Mapping[str, Any]
Verdict = str | None


def broken_relations(settings: Settings) -> list[str]:
    """The messages of all rules that `settings` break."""
    messages = []
    for rule in RULES:
        try:
            message = rule(settings)
        except KeyError:
            continue  # a setting of this rule is reported for its own sake
        if message:
            messages.append(message)
    return messages


def native_head_pools_itself(s: Settings) -> Verdict:
    if s["head.kind"] == "native" and s["head.pool"] is not None:
        return (
            f'head.pool: got "{s["head.pool"]}" beside head.kind = "native", which pools in its '
            'own way; remove it (--unset head.pool) or set head.kind = "linear" or "mlp"'
        )
    return None


def plain_heads_take_no_args(s: Settings) -> Verdict:
    if s["head.args"] and s["head.kind"] in ("native", "linear"):
        return (
            f'head.args: got {", ".join(s["head.args"])} beside head.kind = "{s["head.kind"]}", '
            "which takes none; they are for mlp or a head of your own (FILE.py:CLASS)"
        )
    return None


def a_method_freezes_the_backbone(s: Settings) -> Verdict:
    for name in METHODS:
        if s[name] and s["model.train"] == "all":
            return (
                f'model.train: got "all" beside [{name}], which freezes the backbone; '
                f"remove one of them (--unset model.train or --unset {name})"
            )
    return None


def biases_have_a_place_in_the_file(s: Settings) -> Verdict:
    for name in ("lora", "prompt", "prefix"):
        if s[name] and s["model.train"] == "bias":
            way = 'lora.bias = "all" trains them, ' if name == "lora" else ""
            return (
                f'model.train: got "bias" beside [{name}], whose file has no place for single '
                f"biases; {way}remove one of them (--unset model.train or --unset {name})"
            )
    return None


def a_bag_of_ngrams_has_no_backbone(s: Settings) -> Verdict:
    if not s["ngrams"]:
        return None
    usual = dict.fromkeys(("model.revision", "model.dropout", "head.pool", "head.dropout"))
    usual |= {"model.activation_checkpointing": False, "model.compile": False}
    usual |= {"head.kind": "native", "data.long": "cut", "data.truncation": "right"}
    usual |= {"train.layer_decay": 1.0, "train.unfreeze": 0.0}
    usual |= dict.fromkeys(METHODS, False)
    names = [key for key, value in usual.items() if s[key] != value]
    names += ["model.train"] if s["model.train"] not in (None, "all") else []
    if names:
        others = f", and {', '.join(names[1:])}," if names[1:] else ""
        return (
            f'{names[0]}: got it{others} beside model.source = "{s["model.source"]}", a bag of '
            "n-grams, which has no layers, no head of its own and nothing pretrained, and reads "
            f"texts whole; remove {'them' if others else 'it'} "
            f"({' '.join(f'--unset {name}' for name in names)})"
        )
    return None


def one_method_at_most(s: Settings) -> Verdict:
    there = [name for name in METHODS if s[name]]
    if len(there) > 1:
        return (
            f"{there[1]}: got [{there[1]}] beside [{there[0]}]; one method adapts a run, "
            f"remove one of them (--unset {there[0]} or --unset {there[1]})"
        )
    return None


def lora_layers_are_in_order(s: Settings) -> Verdict:
    if s["lora"] and s["lora.layers"] and s["lora.layers"][0] > s["lora.layers"][1]:
        return f"lora.layers: got {s['lora.layers']}; allowed: [first, last] with first <= last"
    return None


def source_table_has_train(s: Settings) -> Verdict:
    if isinstance(s["data.source"], dict) and "train" not in s["data.source"]:
        return f"data.source: got a table of {_names(s['data.source'])}; it needs train as well"
    return None


def splits_have_train(s: Settings) -> Verdict:
    if s["data.splits"] is not None and "train" not in s["data.splits"]:
        return f"data.splits: got {_names(s['data.splits'])}; it needs train as well"
    return None


def hub_keys_need_a_hub_source(s: Settings) -> Verdict:
    source = s["data.source"]
    parts = list(source.values()) if isinstance(source, dict) else [source]
    names = [name for part in parts for name in _as_list(part)]
    keys = [k for k in ("data.config", "data.revision", "data.splits") if s[k] is not None]
    if keys and not any(name.startswith("hub:") for name in names):
        return (
            f"{keys[0]}: got {s[keys[0]]!r} beside data.source = {source!r}; "
            "only hub: sources have one, remove it"
        )
    return None


def revision_needs_a_hub_model(s: Settings) -> Verdict:
    source = s["model.source"]
    if s["model.revision"] is not None and source.startswith(("package:", "run:")):
        return f'model.revision: got it beside model.source = "{source}"; it is for a hub model'
    return None


def cuts_leave_training_rows(s: Settings) -> Verdict:
    shares = (s["data.validation"], s["data.test"])
    if all(isinstance(share, float) for share in shares) and sum(shares) >= 1:
        return (
            f"data.validation: got {shares[0]} and data.test = {shares[1]}, "
            "which leaves no row to train on; allowed: shares that sum to less than 1"
        )
    return None


def columns_differ(s: Settings) -> Verdict:
    text, label = _as_list(s["data.text"]), _as_list(s["data.label"])
    repeated = sorted({name for name in text + label if (text + label).count(name) > 1})
    if repeated:
        return f"data.text: column {repeated[0]} is named twice among data.text and data.label"
    return None


def a_group_is_no_label(s: Settings) -> Verdict:
    if s["data.group"] in _as_list(s["data.label"]):
        return (
            f'data.group: got "{s["data.group"]}", which is data.label: each class would be on one '
            "side of a cut; name a column that says what belongs together, or remove it"
        )
    return None


def one_label_column_for_one_label(s: Settings) -> Verdict:
    columns = _as_list(s["data.label"])
    if len(columns) > 1 and s["data.kind"] in ("single", "regression"):
        return (
            f'data.label: got {len(columns)} columns beside data.kind = "{s["data.kind"]}"; '
            'allowed: one column, or data.kind = "multi"'
        )
    return None


def a_separator_is_for_several_labels_in_one_column(s: Settings) -> Verdict:
    if s["data.label_separator"] is None:
        return None
    if s["data.kind"] in ("single", "regression"):
        return (
            f'data.label_separator: got it beside data.kind = "{s["data.kind"]}"; it is for '
            'several labels in a cell: data.kind = "multi" or "auto"'
        )
    if len(_as_list(s["data.label"])) > 1:
        return "data.label_separator: got it beside several columns in data.label; remove one"
    return None


def class_names_differ(s: Settings) -> Verdict:
    names = s["data.labels"] or []
    repeated = sorted({name for name in names if names.count(name) > 1})
    return f"data.labels: {_names(repeated)} stands there twice" if repeated else None


def regression_has_no_classes(s: Settings) -> Verdict:
    if s["data.kind"] == "regression" and s["data.labels"] is not None:
        return 'data.labels: got class names beside data.kind = "regression"; remove one of them'
    return None


def own_loss_has_no_weights(s: Settings) -> Verdict:
    for key in ("train.class_weights", "train.label_smoothing"):
        if s["train.loss"] is not None and s[key]:
            return f"{key}: got {s[key]!r} beside train.loss, which would not see it; remove it"
    return None


def class_weights_need_classes(s: Settings) -> Verdict:
    if s["train.class_weights"] is not None and s["data.kind"] == "regression":
        return (
            'train.class_weights: got it beside data.kind = "regression"; it weighs classes, and '
            "numbers have none: remove it (--unset train.class_weights)"
        )
    return None


def one_weight_a_class(s: Settings) -> Verdict:
    weights, labels = s["train.class_weights"], s["data.labels"]
    if isinstance(weights, list) and labels is not None and len(weights) != len(labels):
        return (
            f"train.class_weights: got {len(weights)} weights for {len(labels)} names in "
            "data.labels; allowed: one for each class"
        )
    return None


def smoothing_needs_classes(s: Settings) -> Verdict:
    if s["train.label_smoothing"] and s["data.kind"] in ("multi", "regression"):
        return (
            f"train.label_smoothing: got {s['train.label_smoothing']} beside "
            f'data.kind = "{s["data.kind"]}"; allowed: 0, it is for one-label data'
        )
    return None


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _names(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in names)


RULES = (
    native_head_pools_itself,
    plain_heads_take_no_args,
    a_method_freezes_the_backbone,
    biases_have_a_place_in_the_file,
    a_bag_of_ngrams_has_no_backbone,
    one_method_at_most,
    lora_layers_are_in_order,
    *DISTILL_RULES,
    *BAG_RULES,
    *CHAT_RULES,
    *CONTRAST_RULES,
    *STREAM_RULES,
    source_table_has_train,
    splits_have_train,
    hub_keys_need_a_hub_source,
    revision_needs_a_hub_model,
    cuts_leave_training_rows,
    columns_differ,
    a_group_is_no_label,
    one_label_column_for_one_label,
    a_separator_is_for_several_labels_in_one_column,
    class_names_differ,
    *LONG_TEXTS,
    regression_has_no_classes,
    *EVAL_RULES,
    own_loss_has_no_weights,
    class_weights_need_classes,
    one_weight_a_class,
    smoothing_needs_classes,
    *PARALLEL_RULES,
)
