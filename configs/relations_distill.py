"""What must hold between [distill] and other settings; the rules are as in relations.py."""

from collections.abc import Mapping
from typing import Any

from configs.schema import METHODS

Settings = Mapping[str, Any]
Verdict = str | None


def matched_states_can_move(s: Settings) -> Verdict:
    frozen = s["model.train"] == "head" and not any(s[name] for name in METHODS)
    if s["distill"] and s["distill.hidden"] and frozen:
        return (
            f'distill.hidden: got {s["distill.hidden"]} beside model.train = "head", with which no '
            "hidden state ever changes; remove one of them (--unset distill.hidden)"
        )
    return None


def matched_states_are_those_of_the_text(s: Settings) -> Verdict:
    other = "[prompt]" if s["prompt"] else 'data.long = "chunks"'
    if s["distill"] and s["distill.hidden"] and (s["prompt"] or s["data.long"] == "chunks"):
        return (
            f"distill.hidden: got {s['distill.hidden']} beside {other}, where a text has other "
            "states than its own tokens'; remove one of them (--unset distill.hidden)"
        )
    return None


def matched_states_are_there(s: Settings) -> Verdict:
    for key in ("model.activation_checkpointing", "model.compile"):
        if s["distill"] and s["distill.hidden"] and s[key]:
            return (
                f"{key}: got true beside distill.hidden = {s['distill.hidden']}, which reads what "
                f"each layer leaves; remove one of them (--unset {key})"
            )
    return None


def a_bag_of_ngrams_is_its_own_source(s: Settings) -> Verdict:
    if s["distill"] and s["distill.student"] == "ngrams" != s["model.source"]:
        return (
            f'model.source: got "{s["model.source"]}" beside distill.student = "ngrams", which '
            "starts from nothing; remove one of them (--unset model.source or --unset "
            "distill.student)"
        )
    return None


def layers_are_taken_from_the_teacher(s: Settings) -> Verdict:
    if s["distill"] and _takes_layers(s) and s["model.source"] != s["distill.teacher"]:
        return _beside_layers(s, "model.source")
    return None


def layers_of_the_teacher_have_its_revision(s: Settings) -> Verdict:
    if s["distill"] and _takes_layers(s) and s["model.revision"] is not None:
        return _beside_layers(s, "model.revision")
    return None


def a_bag_of_ngrams_has_no_states(s: Settings) -> Verdict:
    if s["distill"] and s["distill.hidden"] and s["ngrams"]:
        return (
            f"distill.hidden: got {s['distill.hidden']} for a bag of n-grams, which has no hidden "
            "states; remove it (--unset distill.hidden)"
        )
    return None


def a_teacher_is_heard(s: Settings) -> Verdict:
    if s["distill"] and s["distill.weight"] == 0 and s["distill.hidden"] == 0:
        return (
            "distill.weight: got 0, and distill.hidden is 0: nothing of the teacher would be used; "
            "set one of them, or remove the section (--unset distill)"
        )
    return None


def _takes_layers(s: Settings) -> bool:
    return s["distill.student"] is not None and s["distill.student"].startswith("layers:")


def _beside_layers(s: Settings, key: str) -> str:
    return (
        f'{key}: got "{s[key]}" beside distill.student = "{s["distill.student"]}", which starts '
        f"from the teacher's layers; remove one of them (--unset {key} or --unset distill.student)"
    )


DISTILL_RULES = (
    matched_states_can_move,
    matched_states_are_those_of_the_text,
    matched_states_are_there,
    a_bag_of_ngrams_is_its_own_source,
    layers_are_taken_from_the_teacher,
    layers_of_the_teacher_have_its_revision,
    a_bag_of_ngrams_has_no_states,
    a_teacher_is_heard,
)
