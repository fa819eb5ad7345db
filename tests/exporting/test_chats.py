"""Replies of an export beside openloop's: every kind of difference is seen, and judged."""

import pytest

from job.exporting.chats import Replies, compare_chats
from job.exporting.format import exact
from job.exporting.formats.gguf import Gguf, Gguf8
from job.exporting.questions import Own

PROMPTS, REPLIES, LOGPROBS = [[5, 6], [7]], [[1, 2], [3]], [[-0.1, -0.2], [-0.3]]
SAME = {"prompts": PROMPTS, "replies": REPLIES, "logprobs": LOGPROBS}


def own_of(replies=REPLIES, logprobs=LOGPROBS):
    reference = Replies(PROMPTS, replies, logprobs, ["one", "two"])
    return Own({}, "2 prompts", "fp32", 1.0, 2, "tokens", reference)


def judged(parity):
    """Which of the three promises hold."""
    return tuple(judge(parity) == [] for judge in (exact, Gguf().judge, Gguf8().judge))


def test_the_same_replies_hold_everywhere():
    parity = compare_chats(own_of(), SAME)
    assert (parity.equal, parity.outputs, parity.shares) == (2, 0.0, 0.0)
    assert judged(parity) == (True, True, True)


@pytest.mark.parametrize(
    ("answers", "holds"),
    [
        ({"replies": [[1, 2], [4]]}, (False, False, True)),  # in 8 bits tokens may differ
        ({"prompts": [[5, 6], [7, 8]]}, (False, False, False)),  # a tokenizer must not
        ({"logprobs": [[-0.1, -0.24], [-0.3]]}, (False, True, True)),
        ({"logprobs": [[-0.1, -0.5], [-0.3]]}, (False, False, True)),
        ({"logprobs": [[-0.1, -0.9], [-0.3]]}, (False, False, False)),
        ({"logprobs": [[-0.1, float("nan")], [-0.3]]}, (False, False, False)),
    ],
)
def test_what_differs_is_judged_by_what_a_format_promises(answers, holds):
    assert judged(compare_chats(own_of(), SAME | answers)) == holds


def test_nothing_to_compare_is_no_proof():
    none = {"replies": [[], []], "logprobs": [[], []]}
    parity = compare_chats(own_of(**none), SAME | none)
    assert parity.outputs is None
    assert judged(parity) == (True, False, False)  # the first compares replies, empty ones too
    assert "no reply" in Gguf8().judge(parity)[0]


def test_log_probabilities_of_other_tokens_are_not_compared():
    with pytest.raises(ValueError, match="got 2 log-probabilities, expected 3"):
        compare_chats(own_of(), SAME | {"logprobs": [[-0.1], [-0.3]]})
