"""Dropout masks as a hash: their rate, their independence, and what they depend on."""

import pytest
import torch

from engine.randomness import seed_forward
from models.fast.cpu.dropout import FastDropout, places
from models.fast.cpu.kernels import PlainKernels
from models.fast.cpu.masks import PLACES, draw_key, hash_ids, keep_bits, make_draw

RATES = [2**-12, 0.01, 0.1, 0.25, 0.5, 0.9]
HEAD = PLACES << 20  # from the ids of one head to the next
BOUND = 21.2  # chi-square with 3 degrees of freedom stays below it in 9,999 of 10,000 tables


def draw_mask(p, ids, count, seed=0):
    """bool (*ids.shape, count): which elements stay."""
    torch.manual_seed(seed)
    return keep_bits(make_draw(p, ids, count), count) != 0


def ids_of(heads=8, texts=8, tokens=64):
    """(heads, texts, tokens), as attention.py numbers its queries."""
    head = torch.arange(heads).view(-1, 1, 1) * HEAD
    return head + torch.arange(texts).view(-1, 1) * PLACES + torch.arange(tokens)


def chi_square(a, b, p):
    """Of the four joint counts of two masks, against independence at the rate asked for."""
    n, statistic = a.numel(), 0.0
    for first, q in ((a, 1 - p), (~a, p)):
        for second, r in ((b, 1 - p), (~b, p)):
            expected = n * q * r
            statistic += ((first & second).sum().item() - expected) ** 2 / expected
    return statistic


@pytest.mark.parametrize("p", RATES)
def test_rate_is_within_a_binomial_bound(p):
    mask = draw_mask(p, ids_of(), 512)
    n = mask.numel()  # 2 million
    assert abs((~mask).sum().item() - n * p) < 4.5 * (n * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("p", [*RATES, 1e-4, 1 / 3, 0.123456])
def test_threshold_is_the_rate_to_two_to_the_minus_15(p):
    draw = make_draw(p, torch.arange(2), 4)
    assert abs(draw.threshold / 65536 - p) <= 2**-15


@pytest.mark.parametrize("p", [*RATES, 1 / 3])
def test_scale_makes_the_expectation_exact(p):
    draw = make_draw(p, torch.arange(2), 4)
    assert (1 - draw.threshold / 65536) * draw.scale == pytest.approx(1, abs=1e-15)


def test_every_lane_of_a_block_has_the_rate():
    p, lanes = 0.1, draw_mask(0.1, ids_of(), 512).unflatten(-1, (-1, 32)).flatten(0, -2)
    n = len(lanes)
    dropped = (~lanes).sum(0)  # (32,)
    assert ((dropped - n * p).abs() < 4.5 * (n * p * (1 - p)) ** 0.5).all()


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("shift", [1, 2, 8, 15, 16, 17, 32, 64])
def test_elements_of_a_row_are_independent(p, shift):
    mask = draw_mask(p, ids_of(), 512)
    assert chi_square(mask[..., shift:], mask[..., :-shift], p) < BOUND


def test_lower_and_upper_half_of_a_hash_are_independent():
    for p in (0.1, 0.5):
        blocks = draw_mask(p, ids_of(), 512).unflatten(-1, (-1, 2, 16))
        assert chi_square(blocks[..., 0, :], blocks[..., 1, :], p) < BOUND


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("axis", [0, 1, 2], ids=["heads", "texts", "tokens"])
@pytest.mark.parametrize("shift", [1, 2, 3])
def test_rows_heads_and_texts_are_independent(p, axis, shift):
    mask = draw_mask(p, ids_of(), 512)
    length = mask.shape[axis]
    a, b = mask.narrow(axis, 0, length - shift), mask.narrow(axis, shift, length - shift)
    assert chi_square(a, b, p) < BOUND


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_two_keys_are_independent(p):
    assert chi_square(draw_mask(p, ids_of(), 512), draw_mask(p, ids_of(), 512, seed=1), p) < BOUND


def test_two_dropouts_of_one_forward_are_independent():
    torch.manual_seed(0)
    a, b = (keep_bits(make_draw(0.5, ids_of(), 512), 512) != 0 for _ in range(2))
    assert chi_square(a, b, 0.5) < BOUND


def test_patterns_of_eight_neighbours_are_uniform():
    bits = draw_mask(0.5, ids_of(), 512).unflatten(-1, (-1, 8)).long()
    counts = (bits << torch.arange(8)).sum(-1).flatten().bincount(minlength=256).double()
    expected = counts.sum() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 4.5 * (2 * 255) ** 0.5


def test_corners_of_a_rectangle_are_independent():
    """Rows and columns are joined by XOR: without a mixer four corners would cancel out."""
    sign = draw_mask(0.5, ids_of(), 512).float() * 2 - 1  # (H, B, T, count)
    for a, b in ((1, 1), (3, 16), (16, 7), (5, 32)):
        rows = sign[..., a:, :] * sign[..., :-a, :]
        corners = rows[..., b:] * rows[..., :-b]
        assert abs(corners.mean().item()) < 4.5 * corners.numel() ** -0.5


def test_counts_of_whole_rows_spread_as_a_binomial():
    """A row must not be dropped more as a whole: variance of its count within 5 deviations."""
    p, count = 0.1, 512
    dropped = (~draw_mask(p, ids_of(), count)).sum(-1).double()
    expected = count * p * (1 - p)
    assert abs(dropped.var().item() / expected - 1) < 5 * (2 / dropped.numel()) ** 0.5


def test_same_key_gives_the_same_mask():
    assert torch.equal(draw_mask(0.1, ids_of(), 100), draw_mask(0.1, ids_of(), 100))
    assert not torch.equal(draw_mask(0.1, ids_of(), 100), draw_mask(0.1, ids_of(), 100, seed=1))


def test_hashes_of_rows_and_of_columns_both_follow_the_key():
    torch.manual_seed(0)
    a, b = (make_draw(0.1, torch.arange(50), 64) for _ in range(2))
    assert (a.rows != b.rows).all()
    assert (a.columns != b.columns).all()
    assert not set(a.rows.tolist()) & set(a.columns.tolist())


def test_engine_counters_determine_the_mask():
    def mask(*counters):
        seed_forward(*counters)
        return keep_bits(make_draw(0.1, torch.arange(50), 64), 64)

    assert torch.equal(mask(3, 1, 7), mask(3, 1, 7))
    for other in ((4, 1, 7), (3, 2, 7), (3, 1, 8)):
        assert not torch.equal(mask(3, 1, 7), mask(*other))


def test_keys_differ_and_fit_a_signed_integer():
    torch.manual_seed(0)
    keys = [draw_key() for _ in range(100)]
    assert len(set(keys)) == 100
    assert all(0 <= key < 1 << 62 for key in keys)
    assert max(keys) > 1 << 60  # the upper bits are drawn too


@pytest.mark.parametrize(("few", "many"), [(100, 200), (1, 33), (31, 32), (32, 250)])
def test_mask_of_few_keys_is_the_beginning_of_a_mask_of_many(few, many):
    ids = ids_of(2, 2, 8)
    assert torch.equal(draw_mask(0.1, ids, few), draw_mask(0.1, ids, many)[..., :few])


def test_mask_of_a_row_depends_on_its_id_alone():
    ids = ids_of(2, 2, 8)
    some = torch.tensor([3, 17, 30])
    assert torch.equal(
        draw_mask(0.1, ids.flatten()[some], 40), draw_mask(0.1, ids, 40).flatten(0, 2)[some]
    )


def test_hash_of_ids_uses_its_whole_range_and_repeats_none_of_many():
    hashes = hash_ids(ids_of().flatten(), 12345)
    assert hashes.dtype == torch.int32
    assert hashes.unique().numel() == hashes.numel()
    for bit in range(32):  # each bit is set in about half of them
        ones = (hashes >> bit & 1).double().mean().item()
        assert abs(ones - 0.5) < 4.5 * 0.5 * hashes.numel() ** -0.5


@pytest.mark.parametrize("extra", [1, 9])
def test_mask_does_not_depend_on_the_padding_of_the_batch(extra):
    drop = FastDropout(0.3, PlainKernels())

    def mask(tokens):
        torch.manual_seed(0)
        return drop(torch.ones(3, tokens, 20))

    assert torch.equal(mask(7), mask(7 + extra)[:, :7])


def test_places_of_a_padded_batch_are_rows_and_positions():
    ids = places(torch.Size([2, 3]))
    assert ids.tolist() == [[0, 1, 2], [PLACES, PLACES + 1, PLACES + 2]]
    assert places(torch.Size([2])).tolist() == [0, PLACES]
    assert places(torch.Size([2, 2, 3])).unique().numel() == 12
