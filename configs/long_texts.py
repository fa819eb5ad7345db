"""What must hold between the settings of texts longer than data.max_length: rules as those of
relations.py."""

from collections.abc import Mapping
from typing import Any


def pairs_are_cut(s: Mapping[str, Any]) -> str | None:
    if s["data.long"] != "cut" and not isinstance(s["data.text"], str) and len(s["data.text"]) > 1:
        return (
            f'data.long: got "{s["data.long"]}" beside two columns in data.text; it is for single '
            'texts, allowed: "cut", which cuts the longer text of a pair first'
        )
    return None


def both_ends_have_no_side(s: Mapping[str, Any]) -> str | None:
    if s["data.long"] == "head_tail" and s["data.truncation"] == "left":
        return (
            'data.truncation: got "left" beside data.long = "head_tail", which keeps both ends; '
            "remove one of them"
        )
    return None


def head_tokens_are_of_head_tail(s: Mapping[str, Any]) -> str | None:
    if s["data.head_tokens"] is None:
        return None
    if s["data.long"] != "head_tail":
        return (
            f'data.head_tokens: got {s["data.head_tokens"]} beside data.long = "{s["data.long"]}"; '
            'it is for "head_tail", remove it'
        )
    if s["data.head_tokens"] >= s["data.max_length"]:
        return (
            f"data.head_tokens: got {s['data.head_tokens']} beside data.max_length = "
            f"{s['data.max_length']}; allowed: less, so that the end has tokens too"
        )
    return None


def window_settings_are_of_chunks(s: Mapping[str, Any]) -> str | None:
    for key in ("data.stride", "data.max_windows", "data.window_pool"):
        if s[key] is not None and s["data.long"] != "chunks":
            return (
                f'{key}: got {s[key]} beside data.long = "{s["data.long"]}"; it is for "chunks", '
                "remove it"
            )
    return None


def windows_move_on(s: Mapping[str, Any]) -> str | None:
    if s["data.stride"] is not None and s["data.stride"] >= s["data.max_length"]:
        return (
            f"data.stride: got {s['data.stride']} beside data.max_length = "
            f"{s['data.max_length']}; allowed: less, so that each window has tokens of its own"
        )
    return None


def chunks_need_a_pooling_head(s: Mapping[str, Any]) -> str | None:
    if s["data.long"] == "chunks" and s["head.kind"] == "native" and not s["ngrams"]:
        return (
            'data.long: got "chunks" beside head.kind = "native", which shows no vector of a '
            'window to be joined; set head.kind = "linear" or "mlp"'
        )
    return None


LONG_TEXTS = (
    pairs_are_cut,
    both_ends_have_no_side,
    head_tokens_are_of_head_tail,
    window_settings_are_of_chunks,
    windows_move_on,
    chunks_need_a_pooling_head,
)
