"""What a model writes is what transformers writes with it, token for token."""

import pytest
import torch
import transformers

from models.generate import (
    GenerateArgs,
    candidates,
    choose_tokens,
    draw,
    generate,
    room,
    stream,
    write_tokens,
)

V = 97
SHARED = {
    "vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "gpt2": ("GPT2", {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
                      "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}),
    "llama": ("Llama", {**SHARED, "num_key_value_heads": 2}),
    "qwen2": ("Qwen2", {**SHARED, "num_key_value_heads": 2}),
    "gemma2": ("Gemma2", {**SHARED, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8,
                          "final_logit_softcapping": 3.0, "tie_word_embeddings": False}),
}  # fmt: skip
PROMPTS = [[5, 9, 11], [7], [3, 4, 5, 6, 8, 10, 12, 60, 61], [90, 5, 9, 11]]


def make_model(name, seed=3):
    """A random language model whose words are far enough apart that it says several of them."""
    kind, values = CONFIGS[name]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**values)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    # Gemma's plain attention has no number for padding in float64
    return model.eval() if name == "gemma2" else model.double().eval()


models = pytest.mark.parametrize("name", CONFIGS)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return make_model(request.param)


@torch.no_grad()
def theirs(model, prompt, tokens, **options):
    """The new tokens of transformers' own generate, for one prompt."""
    ids = torch.tensor([prompt])
    written = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False,
        pad_token_id=0, **options,
    )  # fmt: skip
    return written[0, len(prompt) :].tolist()


@torch.no_grad()
def ours(model, prompts, ends=(2,), numbers=None, **values):
    return generate(model, prompts, GenerateArgs(**values), ends, numbers)


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_greedy_is_token_for_token_transformers_generate(model, penalty):
    replies = ours(model, PROMPTS, max_tokens=24, repetition_penalty=penalty)
    assert len({token for reply in replies for token in reply.tokens}) > 8  # it says something
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        wanted = theirs(model, prompt, 24, repetition_penalty=penalty)
        assert reply.tokens + [2] * (reply.stopped == "eos") == wanted


def test_a_padded_batch_is_transformers_padded_batch(model):
    width = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in PROMPTS])
    with torch.no_grad():
        wanted = model.generate(
            ids, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
    replies = ours(model, PROMPTS, ends=(), max_tokens=12)
    assert [reply.tokens for reply in replies] == wanted[:, width:].tolist()


def ending(model, place=3):
    """A token that a greedy reply to the first prompt says at `place` for the first time."""
    tokens = ours(model, PROMPTS[:1], ends=(), max_tokens=20)[0].tokens
    return next((t, i) for i, t in enumerate(tokens) if i >= place and t not in tokens[:i])


def test_a_reply_stops_at_any_of_several_end_tokens(model):
    token, place = ending(model)
    (reply,) = ours(model, PROMPTS[:1], ends=(V - 1, token), max_tokens=20)
    assert (len(reply.tokens), reply.stopped) == (place, "eos")
    wanted = theirs(model, PROMPTS[0], 20, eos_token_id=[V - 1, token])
    assert [*reply.tokens, token] == wanted
    (cut,) = ours(model, PROMPTS[:1], ends=(token,), max_tokens=place)
    assert (len(cut.tokens), cut.stopped) == (place, "length")


def test_rows_that_end_leave_the_batch_and_the_others_go_on_as_before(model):
    token, _ = ending(model)
    seen = []
    run = type(model).forward

    def watch(self, input_ids, **others):
        seen.append(len(input_ids))
        return run(self, input_ids=input_ids, **others)

    alone = [ours(model, [p], ends=(token,), max_tokens=30)[0] for p in PROMPTS]
    try:
        type(model).forward = watch
        watch.__wrapped__ = run
        together = ours(model, PROMPTS, ends=(token,), max_tokens=30)
    finally:
        type(model).forward = run
    assert together == alone
    assert seen[0] == len(PROMPTS)
    ended = sum(reply.stopped == "eos" for reply in alone)
    assert seen[-1] <= len(PROMPTS) - ended or ended == 0


def test_what_is_drawn_does_not_depend_on_the_batch(model):
    settings = {"max_tokens": 15, "temperature": 1.3, "top_p": 0.9, "top_k": 40, "seed": 5}
    together = ours(model, PROMPTS, **settings)
    for number, prompt in enumerate(PROMPTS):
        assert ours(model, [prompt], numbers=[number], **settings) == [together[number]]
    backwards = ours(model, PROMPTS[::-1], numbers=[3, 2, 1, 0], **settings)
    assert backwards[::-1] == together
    assert ours(model, PROMPTS, **{**settings, "seed": 6}) != together


def test_drawing_leaves_the_generators_alone(model):
    before = torch.get_rng_state()
    ours(model, PROMPTS, max_tokens=4, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_tokens_come_as_often_as_their_probability_says():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5]], dtype=torch.float64)
    args = GenerateArgs(temperature=0.7)
    n = 20_000
    drawn = choose_tokens(logits.expand(n, -1), args, [draw(1, 0, i) for i in range(n)], None)
    shares = torch.bincount(drawn, minlength=5) / n
    wanted = (logits[0] / 0.7).softmax(-1)
    errors = (shares - wanted) / (wanted * (1 - wanted) / n).sqrt()
    assert errors.abs().max() < 4


def spread(scores, args):
    """(B, V) probabilities that candidates() leaves, by token."""
    shares, tokens = candidates(scores, args)
    shares = shares / shares.sum(-1, keepdim=True)
    return (
        shares if tokens is None else torch.zeros(scores.shape).double().scatter(1, tokens, shares)
    )


@pytest.mark.parametrize("seed", range(3))
def test_filters_are_transformers_logits_processors(seed):
    from transformers.generation import logits_process as theirs

    scores = torch.randn(6, 50, generator=torch.Generator().manual_seed(seed)) * 3
    for k in (None, 1, 7, 50, 90):
        for p in (1.0, 0.05, 0.5, 0.93, 0.9999):
            wanted = theirs.TemperatureLogitsWarper(0.8)(None, scores.clone())
            wanted = wanted if k is None else theirs.TopKLogitsWarper(k)(None, wanted)
            wanted = wanted if p == 1 else theirs.TopPLogitsWarper(p)(None, wanted)
            got = spread(scores, GenerateArgs(temperature=0.8, top_k=k, top_p=p))
            assert ((got > 0) == wanted.isfinite()).all()
            assert torch.allclose(got, wanted.double().softmax(-1), atol=1e-7)


def test_penalty_temperature_and_filters_come_in_transformers_order():
    from transformers.generation import logits_process as theirs

    draws = torch.Generator().manual_seed(4)
    scores, ids = (
        torch.randn(5, 40, generator=draws) * 2,
        torch.randint(40, (5, 9), generator=draws),
    )
    wanted = scores
    for one in (
        theirs.RepetitionPenaltyLogitsProcessor(1.4), theirs.TemperatureLogitsWarper(0.6),
        theirs.TopKLogitsWarper(12), theirs.TopPLogitsWarper(0.8),
    ):  # fmt: skip
        wanted = one(ids, wanted.clone())
    args = GenerateArgs(temperature=0.6, top_k=12, top_p=0.8, repetition_penalty=1.4)
    seen = torch.zeros(5, 40, dtype=torch.bool).scatter(1, ids, True)
    shares = torch.zeros(5, 40)
    for level in range(400):  # evenly over [0, 1): each token as often as it is likely
        tokens = choose_tokens(scores, args, [(level + 0.5) / 400] * 5, seen)
        shares.scatter_add_(1, tokens.unsqueeze(1), torch.full((5, 1), 1 / 400))
    assert torch.allclose(shares, wanted.softmax(-1), atol=2.01 / 400)


def test_tokens_stream_one_by_one_and_may_be_left(model):
    (whole,) = ours(model, PROMPTS[:1], max_tokens=9, ends=())
    calls = []

    def within():
        calls.append(torch.is_grad_enabled())
        return torch.no_grad()

    args = GenerateArgs(max_tokens=9)
    tokens = stream(model, PROMPTS[0], args, (), within=within)
    assert [next(tokens) for _ in range(3)] == whole.tokens[:3]
    assert len(calls) == 3  # nothing is worked out ahead
    assert torch.is_grad_enabled()  # between two tokens the caller is as it was
    tokens.close()
    tokens_seen, reason = drain(stream(model, PROMPTS[0], args, (), within=torch.no_grad))
    assert (tokens_seen, reason) == (whole.tokens, "length")
    tokens_seen, reason = drain(
        stream(model, PROMPTS[0], args, whole.tokens[:1], within=torch.no_grad)
    )
    assert (tokens_seen, reason) == ([], "eos")


def drain(tokens):
    """All that a generator yields, and what it returns."""
    kept = []
    while True:
        try:
            kept.append(next(tokens))
        except StopIteration as end:
            return kept, end.value


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error(temperature):
    model = make_model("llama")
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(ValueError, match="no numbers"):
        ours(model, PROMPTS, temperature=temperature)


def test_the_models_positions_end_a_reply(model):
    most = room(model)
    assert most == 64
    prompt = [5] * (most - 3)
    (reply,) = ours(model, [prompt], ends=(), max_tokens=50)
    assert (len(reply.tokens), reply.stopped) == (3, "length")
    with pytest.raises(ValueError, match=r"prompt 1 has 64 tokens; .* positions for 64"):
        ours(model, [[5], [5] * most])
    with pytest.raises(ValueError, match="prompt 0 has no token"):
        ours(model, [[]])


UNEVEN = {  # lengths of prompts, 64 positions: some replies end at the last one, others go on
    "one long": [60, *[4] * 7],
    "full at different places": [63, 62, 58, 50, *[3] * 9],
    "no room but one": [63, 1],
}


def uneven(lengths):
    """Prompts of these lengths, no two alike."""
    return [[3 + (i * 7 + at * 5) % (V - 3) for at in range(n)] for i, n in enumerate(lengths)]


@pytest.mark.parametrize("lengths", UNEVEN.values(), ids=UNEVEN)
def test_a_reply_at_the_last_position_does_not_end_the_others(model, lengths):
    prompts = uneven(lengths)
    together = ours(model, prompts, ends=(), max_tokens=20)
    assert [len(reply.tokens) for reply in together] == [min(20, 64 - n) for n in lengths]
    assert together == [ours(model, [prompt], ends=(), max_tokens=20)[0] for prompt in prompts]


def test_a_reply_that_ended_by_itself_is_not_read_past_the_last_position():
    model = make_model("gpt2")
    prompts = uneven([60, *[4] * 7])
    (long,) = ours(model, prompts[:1], ends=(), max_tokens=20)
    others = ours(model, prompts[1:], ends=(), max_tokens=20)
    spoken = {token for reply in others for token in reply.tokens}
    for place, end in enumerate(long.tokens):  # the long one ends before the table does
        if end in spoken or end in long.tokens[:place]:
            continue
        together = ours(model, prompts, ends=(end,), max_tokens=20)
        assert (len(together[0].tokens), together[0].stopped) == (place, "eos")
        assert together[1:] == others
        break
    else:
        pytest.fail("this model says no token that only the long reply has")


def test_texts_that_are_read_whole_stop_at_the_last_position_too(monkeypatch):
    from models.reader import WholeReader

    model, prompts = make_model("gpt2"), uneven([60, *[4] * 7])
    wanted = ours(model, prompts, ends=(), max_tokens=20)
    monkeypatch.setattr("models.generate.build_reader", WholeReader)
    assert ours(model, prompts, ends=(), max_tokens=20) == wanted


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_tokens", 0), ("temperature", -1.0), ("temperature", float("nan")), ("top_k", 0),
     ("top_p", 0.0), ("top_p", 1.5), ("repetition_penalty", 0.0)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"generate\.{name} is {value}; expected"):
        GenerateArgs(**{name: value})


METHODS = {
    "lora": lambda m: m.LoRA(rank=2, alpha=4.0, targets="all-linear"),
    "prompt": lambda m: m.Prompt(tokens=3),
    "prefix": lambda m: m.PrefixTuning(tokens=3),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_method_answers_as_its_whole_text_does(name, method):
    import models.methods as known

    model = make_model(name)
    if method == "prefix":
        model.set_attn_implementation("sdpa")
    METHODS[method](known).inject(model.float(), seed=1)
    model = model.double().eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("lora_B"):
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    replies = ours(model, PROMPTS, ends=(), max_tokens=6)
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        text = list(prompt)
        for _ in range(6):  # without anything kept, without padding
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([text]), use_cache=False).logits
            text.append(logits[0, -1].argmax().item())
        assert reply.tokens == text[len(prompt) :]
    assert room(model) == 64 - 3 * (method != "lora")


def test_no_prompts_have_no_replies(model):
    assert list(write_tokens(model, [], GenerateArgs(), ())) == []
