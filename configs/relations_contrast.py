"""What must hold between [contrast] and other settings; the rules are as in relations.py."""

from collections.abc import Mapping
from typing import Any

from configs.schema import METHODS

Settings = Mapping[str, Any]
Verdict = str | None


def pairs_need_classes(s: Settings) -> Verdict:
    if s["contrast"] and s["data.kind"] in ("multi", "regression"):
        return (
            f'contrast: got [contrast] beside data.kind = "{s["data.kind"]}"; its pairs are of one '
            "class or of two, so a row has one: remove it (--unset contrast)"
        )
    return None


def compared_vectors_can_move(s: Settings) -> Verdict:
    frozen = s["model.train"] == "head" and not any(s[name] for name in METHODS)
    if s["contrast"] and frozen:
        return (
            'contrast: got [contrast] beside model.train = "head", with which no vector of a text '
            "ever changes; remove one of them (--unset contrast or --unset model.train)"
        )
    return None


def pairs_stay_in_a_micro_batch(s: Settings) -> Verdict:
    if s["contrast"] and s["train.micro_batch_size"] % 2:
        return (
            f"train.micro_batch_size: got {s['train.micro_batch_size']} beside [contrast], whose "
            "pairs would be torn apart; allowed: an even number"
        )
    return None


def compared_vectors_are_there(s: Settings) -> Verdict:
    if not s["contrast"]:
        return None
    if s["ngrams"]:
        return (
            "contrast: got [contrast] for a bag of n-grams, which has no vector of a text that "
            "could be compared; remove it (--unset contrast)"
        )
    if s["head.kind"] == "native":
        return (
            'head.kind: got "native" beside [contrast], which compares what the head answers from, '
            'and a native one does not show it; allowed: "linear", "mlp" or a head of your own'
        )
    if s["model.compile"]:
        return (
            "model.compile: got true beside [contrast], which reads what enters the head; remove "
            "one of them (--unset model.compile)"
        )
    return None


def drawn_classes_are_balanced(s: Settings) -> Verdict:
    if s["contrast"] and s["train.class_weights"] == "balanced":
        return (
            'train.class_weights: got "balanced" beside [contrast], which draws all classes '
            "equally often: rare ones would count twice. Remove it (--unset train.class_weights)"
        )
    return None


CONTRAST_RULES = (
    pairs_need_classes,
    compared_vectors_can_move,
    pairs_stay_in_a_micro_batch,
    compared_vectors_are_there,
    drawn_classes_are_balanced,
)
