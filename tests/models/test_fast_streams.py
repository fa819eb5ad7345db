"""Streams without padding: hidden states, gradients and heads as in a padded batch."""

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from models.fast.cpu.attention import register
from models.fast.cpu.dropout import replace_dropout
from models.fast.cpu.kernels import PlainKernels
from models.fast.layout import MULTIPLE, stream_length
from models.fast.speed import SpeedArgs, speed_up
from models.fast.streams import run_as_stream
from models.heads import Classifier

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
NAMES = ["albert", "bert", "distilbert", "electra", "roberta"]
POOLED = ["albert", "bert", "roberta"]
CHECKPOINTED = ["bert", "distilbert", "electra", "roberta"]  # ALBERT has no checkpointing
MASKS = {
    "right": [[1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]],
    "left": [[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1]],
    "none": [[1, 1, 1, 1, 1, 1, 1]] * 3,
    "holes": [[1, 0, 1, 1, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]],
}


def batch(side, types=False):
    mask = torch.tensor(MASKS[side])
    draw = torch.Generator().manual_seed(1)
    inputs = {"input_ids": torch.randint(1, 50, mask.shape, generator=draw) * mask}
    inputs["attention_mask"] = mask
    if types:
        inputs["token_type_ids"] = torch.randint(0, 2, mask.shape, generator=draw) * mask
    return inputs


def widen(inputs, columns):
    return {name: nn.functional.pad(tensor, (0, columns)) for name, tensor in inputs.items()}


@pytest.fixture
def encoder(encoder):
    """encoder(name, stream=True, kind=AutoModel): the shared one, on streams."""
    shared = encoder

    def make(name, stream=True, kind=AutoModel):
        model = shared(name, kind)
        if stream:
            model.set_attn_implementation(register(PlainKernels()))
            run_as_stream(model.base_model)
        return model

    return make


def gradients_of(model, value):
    model.zero_grad()
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(2))
    (value * weights).mean().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def real_hidden(model, inputs):
    return model(**inputs).last_hidden_state[inputs["attention_mask"].bool()]  # (N, D)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", MASKS)
def test_hidden_states_and_gradients_equal_the_padded_ones(encoder, name, side):
    found = []
    for stream in (True, False):
        model = encoder(name, stream)
        hidden = real_hidden(model, batch(side))
        found.append((hidden.detach(), gradients_of(model, hidden)))
    torch.testing.assert_close(found[0], found[1], **CLOSE)
    assert len(found[0][1]) > 20


@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_come_back_padded_with_zeros(encoder, name):
    inputs = batch("right")
    hidden = encoder(name)(**inputs).last_hidden_state
    assert hidden.shape == (3, 7, 16)
    assert not hidden[inputs["attention_mask"] == 0].any()
    assert hidden[inputs["attention_mask"] == 1].any(-1).all()


@pytest.mark.parametrize("name", ["albert", "bert", "electra"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_token_types_reach_their_tokens(encoder, name, side):
    typed, untyped = batch(side, types=True), batch(side)
    expected = real_hidden(encoder(name, stream=False), typed)
    torch.testing.assert_close(real_hidden(encoder(name), typed), expected, **CLOSE)
    assert not torch.allclose(real_hidden(encoder(name), untyped), expected, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_positions_are_those_that_the_padded_model_looks_up(encoder, name, side):
    inputs, seen = batch(side), []
    mask = inputs["attention_mask"].bool()
    for stream in (True, False):
        model = encoder(name, stream)
        table = model.embeddings.position_embeddings
        table.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        model(**inputs)
    stream_positions, padded_positions = seen
    assert stream_positions.shape == (1, stream_length(12))
    assert torch.equal(stream_positions[0, : mask.sum()], padded_positions.expand_as(mask)[mask])


def test_roberta_counts_from_pad_plus_one(encoder):
    model = encoder("roberta")
    seen = []
    table = model.embeddings.position_embeddings
    table.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(**batch("left"))
    first = model.config.pad_token_id + 1
    assert seen[0][0, :12].tolist() == [*range(first, first + 7), first, *range(first, first + 4)]


@pytest.mark.parametrize("name", POOLED)
def test_pooled_output_equals_the_padded_one(encoder, name):
    inputs = batch("right")
    found, expected = (encoder(name, s)(**inputs).pooler_output for s in (True, False))
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_the_native_head_and_gradients_equal_the_padded_ones(encoder, name):
    found = []
    for stream in (True, False):
        model = encoder(name, stream, AutoModelForSequenceClassification)
        logits = model(**batch("right")).logits
        found.append((logits.detach(), gradients_of(model, logits)))
    assert found[0][0].shape == (3, 2)
    torch.testing.assert_close(found[0], found[1], **CLOSE)


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("head", ["native", "linear"])
def test_built_models_give_the_padded_logits(make, stir, encode, logits_of, name, head):
    found = []
    for fast in (True, False):
        built, _, tokenizer = make(name, head_kind=head)
        stir(built.model)
        if fast:
            args = SpeedArgs(native="off")
            speed_up(built.model, args, torch.device("cpu"), torch.float32, compiled=False)
        inputs = {k: v for k, v in encode(tokenizer).items() if k != "token_type_ids"}
        found.append(logits_of(built.model, inputs))
    torch.testing.assert_close(*found, **CLOSE)


class Recorder(nn.Module):
    def forward(self, hidden, mask):
        self.seen = hidden, mask
        return hidden[:, 0]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_head_of_ones_own_sees_padded_states_and_the_mask(encoder, side):
    inputs = batch(side)
    model = Classifier(encoder("bert"), Recorder())
    model(**inputs)
    hidden, mask = model.head.seen
    assert torch.equal(mask, inputs["attention_mask"])
    assert hidden.shape == (3, 7, 16)
    expected = real_hidden(encoder("bert", stream=False), inputs)
    torch.testing.assert_close(hidden[mask.bool()], expected, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["right", "holes"])
def test_linear_layers_and_norms_see_the_filled_stream_only(encoder, name, side):
    model, seen = encoder(name), {}
    for layer, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.LayerNorm) and "pooler" not in layer:
            module.register_forward_hook(
                lambda _, given, out, layer=layer: seen.update({layer: out.shape[:-1].numel()})
            )
    inputs = batch(side)
    model(**inputs)
    assert len(seen) >= 8
    assert set(seen.values()) == {stream_length(12)}


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_rows_without_a_token_give_zeros(encoder, name):
    ids = torch.ones(2, 5, dtype=torch.long)
    model = encoder(name)
    out = model(input_ids=ids, attention_mask=torch.zeros_like(ids))
    assert not out.last_hidden_state.any()
    assert out.pooler_output.isfinite().all()


def test_batches_of_many_lengths_make_streams_of_few(encoder):
    model, seen = encoder("bert"), []
    model.embeddings.register_forward_hook(lambda _, given, out: seen.append(out.shape[1]))
    for tokens in range(17, 49):
        ids = torch.ones(4, tokens, dtype=torch.long)
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert set(seen) == {2 * MULTIPLE, 3 * MULTIPLE, 4 * MULTIPLE}
    assert all(0 < length - 4 * (n + 17) <= MULTIPLE for n, length in enumerate(seen))


def dropped(encoder, name, unpad, inputs, seed=0):
    """Hidden states of the real tokens in training, all of dropout on."""
    model = encoder(name, stream=False)
    args = SpeedArgs(unpad=unpad, native="off")
    speed_up(Classifier(model, nn.Identity()), args, torch.device("cpu"), torch.float32, False)
    torch.manual_seed(seed)
    return real_hidden(model.train(), inputs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_dropout_is_the_same_padded_and_in_a_stream(encoder, name, side):
    inputs = batch(side)
    found, expected = (dropped(encoder, name, unpad, inputs) for unpad in (True, False))
    torch.testing.assert_close(found, expected, **CLOSE)
    other = dropped(encoder, name, True, inputs, seed=1)
    assert not torch.allclose(found, other, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_wider_batch_changes_no_bit_of_a_stream(encoder, name):
    inputs = batch("right")
    for found, wider in (
        (
            real_hidden(encoder(name), inputs),
            real_hidden(encoder(name), widen(inputs, 5)),
        ),
        (
            dropped(encoder, name, True, inputs),
            dropped(encoder, name, True, widen(inputs, 5)),
        ),
    ):
        assert torch.equal(found, wider)


def test_what_no_stream_can_do_goes_the_padded_way(encoder):
    inputs = batch("right")
    model, stock = encoder("bert"), encoder("bert", stream=False)
    states = model(**inputs, output_hidden_states=True).hidden_states
    expected = stock(**inputs, output_hidden_states=True).hidden_states
    real = inputs["attention_mask"].bool()
    for a, b in zip(states, expected, strict=True):
        torch.testing.assert_close(a[real], b[real], **CLOSE)
    ids = inputs["input_ids"]
    torch.testing.assert_close(
        model(input_ids=ids).last_hidden_state, stock(input_ids=ids).last_hidden_state, **CLOSE
    )


def test_a_padded_forward_after_a_stream_forgets_the_streams_ids(encoder):
    """Otherwise a batch of one row, as long as the stream was, would be dropped as the stream."""
    found = []
    for stream_first in (True, False):
        model = encoder("bert", stream=False)
        replace_dropout(model, PlainKernels())
        model.set_attn_implementation(register(PlainKernels()))
        run_as_stream(model)
        model.train()
        if stream_first:
            model(**batch("right"))  # a stream of 12 tokens, filled up
        ids = torch.arange(stream_length(12)).unsqueeze(0)
        torch.manual_seed(0)
        found.append(model(input_ids=ids).last_hidden_state)
    assert torch.equal(*found)


def test_tuples_come_where_they_are_asked_for(encoder):
    output = encoder("bert")(**batch("right"), return_dict=False)
    expected = encoder("bert", stream=False)(**batch("right"), return_dict=False)
    assert type(output) is tuple
    torch.testing.assert_close(output[1], expected[1], **CLOSE)


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_activation_checkpointing_gives_the_same_gradients(encoder, name):
    found = []
    for checkpointing in (False, True):
        model = encoder(name, stream=False)
        args = SpeedArgs(native="off")
        speed_up(Classifier(model, nn.Identity()), args, torch.device("cpu"), torch.float32, False)
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(0)
        found.append(gradients_of(model, real_hidden(model, batch("right"))))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("name", CHECKPOINTED)
@pytest.mark.parametrize("written", [True, False])
def test_two_forwards_before_one_backward_keep_their_own_dropout(encoder, name, written):
    """As contrastive losses do: what is recomputed is dropped as in its own forward."""
    found = []
    for checkpointing in (False, True):
        model = encoder(name, stream=False)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        args = SpeedArgs(qkv=written, norm=written, last_layer=written)
        speed_up(Classifier(model, nn.Identity()), args, torch.device("cpu"), torch.float32, False)
        model.train()
        torch.manual_seed(0)
        first, second = (real_hidden(model, batch(side)) for side in ("right", "left"))
        found.append(gradients_of(model, torch.cat([first, second.square()])))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_a_recomputation_that_cannot_know_its_rows_is_refused(encoder, name):
    model = encoder(name, stream=False)
    args = SpeedArgs(qkv=False, norm=False, last_layer=False)
    speed_up(Classifier(model, nn.Identity()), args, torch.device("cpu"), torch.float32, False)
    model.train().activation_checkpointing_enable({"use_reentrant": False})
    hidden = real_hidden(model, batch("right"))
    with pytest.raises(RuntimeError, match="carry_rows"):
        hidden.sum().backward()
