"""A conversation of very many turns takes memory as it is long, not as the square of that."""

import tracemalloc
from itertools import pairwise

import pytest
from talks import CHATML, GEMMA, LLAMA, MISTRAL, SMOLLM, talk

from data.chat.render import Renderer
from data.chat.shapes import STAND_IN, Shapes
from data.chat.templates import choose_template, render
from data.reading.rows import BadRow


def long_chat(exchanges, system=None):
    return talk(*["how are you fine and what is it good", "thanks bye"] * exchanges, system=system)


def memory_of(tokenizer, exchanges, system=None):
    """Bytes at the highest point of masking one conversation, and bytes kept behind it."""
    renderer = Renderer(tokenizer, choose_template(tokenizer, None))
    renderer.mask([long_chat(2)], ["a"])  # what is compiled and imported once
    chat = long_chat(exchanges, system)
    tracemalloc.start()
    try:
        (masked,) = renderer.mask([chat], ["a"])
        assert not isinstance(masked, BadRow)
        del masked
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return most, kept


@pytest.mark.parametrize("system", [None, "tell me"])
def test_memory_grows_as_a_conversation_does(system, chatml):
    sizes = [memory_of(chatml, exchanges, system) for exchanges in (50, 100, 200)]
    for (most, kept), (twice_most, twice_kept) in pairwise(sizes):
        assert twice_most < 2.6 * most  # 4 where each beginning is kept
        assert twice_kept < 2.6 * kept


def test_beginnings_that_are_tokenised_apart_are_not_all_kept(tokenizer_for, monkeypatch):
    from data.chat import render as rendering

    monkeypatch.setattr(rendering, "AT_ONCE", 4)
    whole = Renderer._encode
    seen = []

    def encode(self, texts, special=False):
        made = whole(self, texts, special)
        if len(texts) > 1 and all(b.startswith(a) for a, b in pairwise(texts)):
            seen.append(len(texts))
            return made
        return [[-1, *ids] if len(texts) > 1 else ids for ids in made]  # pieces unlike the whole

    tokenizer = tokenizer_for(CHATML)
    chat = long_chat(11)
    (usual,) = Renderer(tokenizer, choose_template(tokenizer, None)).mask([chat], ["a"])
    monkeypatch.setattr(Renderer, "_encode", encode)
    (apart,) = Renderer(tokenizer, choose_template(tokenizer, None)).mask([chat], ["a"])
    assert seen == [4, 4, 4, 4, 4, 2]
    assert apart.learned.tolist() == usual.learned.tolist()


TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "mistral": MISTRAL, "gemma": GEMMA, "smollm": SMOLLM}
TEMPLATES["unlike"] = "{% for m in messages %}{{ messages | length }}{{ m['content'] }}{% endfor %}"
TEMPLATES["the last apart"] = (
    "{% for m in messages %}{{ '#' if loop.last else '' }}{{ m['content'] }};{% endfor %}"
)


def shape_by_rendering(tokenizer, template, roles):
    """(start, end) of each reply in the text of stand-ins; None where a beginning does not begin
    it: every beginning is rendered and compared as it is."""
    stood = [{"role": role, "content": STAND_IN.format(i)} for i, role in enumerate(roles)]
    whole = render(tokenizer, template, stood, False)
    spans = []
    for i in (i for i, role in enumerate(roles) if role == "assistant"):
        parts = (
            render(tokenizer, template, stood[:i], True),
            render(tokenizer, template, stood[: i + 1], False),
        )
        if not all(whole.startswith(part) for part in parts):
            return None
        spans.append(tuple(map(len, parts)))
    return whole, spans


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_shape_is_what_rendering_every_beginning_says_whatever_came_before(
    name, order, tokenizer_for
):
    tokenizer = tokenizer_for(TEMPLATES[name], bos="<s>", eos="</s>")
    template = choose_template(tokenizer, None)
    shapes = Shapes(tokenizer, template)
    for exchanges in (1, 2, 5, 9)[::order]:
        roles = tuple(message["role"] for message in long_chat(exchanges))
        shape, expected = shapes.of(roles), shape_by_rendering(tokenizer, template, roles)
        if shape is None:
            assert expected is None
            continue
        stand_ins = [STAND_IN.format(i) for i in range(len(roles))]
        assert shape.fill(stand_ins, sorted(shape.starts)) == expected
