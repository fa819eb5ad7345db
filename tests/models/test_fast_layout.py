"""Where texts lie in a stream: every real token once, a filling that is a text of its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.fast.layout import FEW, MULTIPLE, layout_of, stream_length

MASK = torch.tensor([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]])


def test_texts_and_filling_end_where_they_should_and_empty_rows_are_left_out():
    layout = layout_of(MASK)
    assert layout.ends.tolist() == [0, 4, 6, 8]
    assert layout.firsts.tolist() == [0, 4, 6]
    assert layout.spans == [(0, 4), (4, 4), (4, 6)]
    assert (layout.rows, layout.width, layout.longest, layout.filling) == (3, 5, 4, 2)


def test_a_batch_without_a_token_is_nothing_but_filling():
    layout = layout_of(torch.zeros(2, 3, dtype=torch.long))
    assert layout.ends.tolist() == [0, FEW]
    assert layout.firsts.tolist() == [0]


def test_a_short_text_makes_a_short_stream():
    assert [stream_length(n) for n in (0, 6, 8, 63, 64, 65)] == [8, 8, 16, 64, 128, 128]


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=12),
    side=st.sampled_from(["left", "right"]),
)
def test_what_goes_into_a_stream_comes_back_padded(lengths, side):
    width = max(*lengths, 1)
    place = torch.arange(width)
    counts = torch.tensor(lengths).unsqueeze(1)
    mask = (place < counts if side == "right" else place >= width - counts).long()
    layout = layout_of(mask)
    values = torch.arange(1, mask.numel() + 1).view_as(mask) * mask
    stream = layout.stream(values)
    assert stream.shape[1] % (MULTIPLE if sum(lengths) >= MULTIPLE else FEW) == 0
    assert 1 <= layout.filling <= MULTIPLE
    assert torch.equal(layout.padded(stream.unsqueeze(-1)).squeeze(-1), values)
    assert int(layout.ends.diff().min()) > 0  # no text of no tokens: attention would divide by 0
    assert int(layout.ends.diff().max()) == layout.longest
    firsts = layout.padded(stream[:, layout.firsts].unsqueeze(-1)).squeeze(-1)
    assert (firsts > 0).sum(1).tolist() == [int(n > 0) for n in lengths]


@pytest.mark.parametrize("side", [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
def test_the_same_token_is_called_the_same_in_a_wider_batch(side):
    mask = torch.tensor([[1] * 6, side])
    wider = torch.nn.functional.pad(mask, (0, 4))
    assert torch.equal(layout_of(mask).ids, layout_of(wider).ids)
