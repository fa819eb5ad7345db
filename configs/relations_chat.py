"""What goes with task.kind = "chat" and what does not; the rules are as in relations.py."""

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]
Verdict = str | None

# what chat alone has, and what labelled texts alone have: at any other value it would be ignored
OF_CHAT: dict[str, Any] = {
    "data.messages": "messages",
    "data.roles": None,
    "data.turn": None,
    "data.template": None,
    "data.learn": "replies",
    "data.packing": False,
    "data.overlong": None,
    "data.clean.ends": True,
    "generate.max_tokens": 128,
    "generate.temperature": 0.0,
    "generate.top_k": None,
    "generate.top_p": 1.0,
    "generate.repetition_penalty": 1.0,
    "generate.replies": 16,
}
OF_LABELS: dict[str, Any] = {
    "head.kind": "native",
    "head.pool": None,
    "head.dropout": None,
    "head.args": {},
    "distill": False,
    "bag": False,
    "contrast": False,
    "expect": [],
    "data.text": "text",
    "data.label": "label",
    "data.labels": None,
    "data.label_separator": None,
    "data.kind": "auto",
    "data.clean.min_chars": 1,
    "data.truncation": "right",
    "data.long": "cut",
    "data.head_tokens": None,
    "data.stride": None,
    "data.max_windows": None,
    "data.window_pool": None,
    "train.head_lr": None,
    "train.loss": None,
    "train.class_weights": None,
    "train.label_smoothing": 0.0,
    "eval.slices": [],
    "decide.calibrate": True,
    "decide.min_precision": None,
}
OF_TOKENS = ("perplexity", "token_accuracy")  # figures of chat alone
METRICS = ("auto", "loss", *OF_TOKENS)


def settings_are_of_the_task(s: Settings) -> Verdict:
    chat = s["task.kind"] == "chat"
    strange = [key for key, usual in (OF_LABELS if chat else OF_CHAT).items() if s[key] != usual]
    if not strange:
        return None
    others = f", and {', '.join(strange[1:])}," if strange[1:] else ""
    whose = "conversations have none" if chat else 'that is of task.kind = "chat" alone'
    gone = " ".join(f"--unset {key}" for key in strange)
    return (
        f'{strange[0]}: got it{others} with task.kind = "{s["task.kind"]}"; {whose}: remove '
        f"{'them' if others else 'it'} ({gone})"
    )


def a_bag_does_not_talk(s: Settings) -> Verdict:
    if s["task.kind"] == "chat" and s["ngrams"]:
        return (
            f'model.source: got "{s["model.source"]}" with task.kind = "chat"; a bag of n-grams '
            "has no order of words: start from a language model"
        )
    return None


def chats_have_their_own_figures(s: Settings) -> Verdict:
    metric, chat = s["eval.metric"], s["task.kind"] == "chat"
    if chat and metric not in METRICS:
        return f'eval.metric: got "{metric}" with task.kind = "chat"; allowed: {", ".join(METRICS)}'
    if not chat and metric in OF_TOKENS:
        return f'eval.metric: got "{metric}", a figure of task.kind = "chat"; leave it out'
    return None


def virtual_tokens_are_not_packed(s: Settings) -> Verdict:
    for name in ("prompt", "prefix"):
        if s["data.packing"] and s[name]:
            return (
                f"data.packing: got true beside [{name}], which stands once before a row, and a "
                "packed row has several conversations: remove one of them "
                f"(--unset data.packing or --unset {name})"
            )
    return None


def a_split_learns_more_than_the_last_reply(s: Settings) -> Verdict:
    if s["data.overlong"] == "split" and s["data.learn"] == "last":
        return (
            'data.overlong: got "split" with data.learn = "last"; only one of the pieces holds the '
            'last reply, and the others nothing to learn: set data.overlong = "left", which keeps '
            'the end, or data.learn = "replies"'
        )
    return None


CHAT_RULES = (
    settings_are_of_the_task,
    a_bag_does_not_talk,
    chats_have_their_own_figures,
    virtual_tokens_are_not_packed,
    a_split_learns_more_than_the_last_reply,
)
