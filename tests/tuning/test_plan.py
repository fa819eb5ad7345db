"""The plan of a search: a pure function of speeds and time."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.tuning.plan import (
    EACH,
    FEW,
    FEWEST_STEPS,
    IN_FULL,
    MOST_TRIALS,
    SHORTEST,
    WANTED,
    Rung,
    Shape,
    Speeds,
    closing_seconds,
    fit_run,
    fitted,
    grow,
    least_rows,
    plan_rungs,
    run_seconds,
    rungs_seconds,
    share_out,
    shrink,
    validation_rows,
)

QUICK = Shape(800, 1, 16, 200, 600, {160: 150.0, 80: 78.0})
IDLE = Speeds(1.5, 5e-4, 1.7e-4, 6.0)


def halves(length, mean):
    lengths = {length: float(mean)}
    while length // 2 >= SHORTEST:
        length, mean = length // 2, max(1.0, mean / 1.6)
        lengths[length] = mean
    return lengths


shapes = st.builds(
    Shape,
    rows=st.integers(1, 300_000),
    epochs=st.integers(1, 5),
    batch=st.sampled_from([1, 4, 8, 16, 64]),
    validation=st.integers(1, 20_000),
    test=st.integers(0, 20_000),
    tokens=st.builds(halves, st.sampled_from([32, 64, 160, 512]), st.floats(5, 500)),
    every=st.none() | st.integers(1, 200),
    classes=st.integers(2, 20),
)
speeds = st.builds(
    Speeds, st.floats(0.1, 20), st.floats(1e-6, 1e-2), st.floats(1e-7, 1e-2), st.floats(1, 90),
    keeping=st.just(0.0) | st.floats(1e-6, 1e-2),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(shapes, speeds, st.floats(1, 5000))
def test_trials_fit_the_time_and_each_rung_is_smaller_and_on_more_rows(shape, speed, seconds):
    plan = plan_rungs(shape, speed, seconds)
    assert rungs_seconds(shape, speed, plan) <= seconds
    for rung in plan:
        assert rung.trials >= 2
        assert least_rows(shape) <= rung.rows <= shape.rows
        assert 1 <= rung.validation <= shape.validation
    for one, following in pairwise(plan):
        assert one.trials > following.trials
        assert one.rows < following.rows


@settings(max_examples=60, deadline=None)
@given(shapes, speeds, st.floats(1, 5000))
def test_a_plan_ends_on_all_rows_and_none_means_that_two_runs_are_too_long(shape, speed, seconds):
    if plan := plan_rungs(shape, speed, seconds):
        assert plan[-1].rows == shape.rows
    else:
        least = Rung(2, shape.rows, validation_rows(shape, shape.rows))
        assert rungs_seconds(shape, speed, [least]) > seconds


@settings(max_examples=60, deadline=None)
@given(shapes, speeds, st.floats(1, 5000))
def test_what_is_trained_in_full_fits_unless_a_batch_is_too_much(shape, speed, seconds):
    fit = fit_run(shape, speed, seconds)
    assert 1 <= fit.rows <= shape.rows
    assert 1 <= fit.epochs <= shape.epochs
    assert fit.validation <= shape.validation
    assert fit.test <= shape.test
    assert fit.length in shape.tokens
    if fit.rows > 4 * shape.batch and fit.validation > shape.batch and fit.test > shape.batch:
        assert fit.seconds <= seconds * (1 + 1e-9)
    if run_seconds(shape, speed, replace(fit_run(shape, speed, math.inf), seconds=0)) <= seconds:
        assert fit.whole


@settings(max_examples=100, deadline=None)
@given(shapes, speeds, st.floats(1, 5000))
def test_a_run_has_steps_enough_to_learn_whatever_the_time(shape, speed, seconds):
    fit = fit_run(shape, speed, seconds)
    all_steps = shape.epochs * math.ceil(shape.rows / shape.batch)
    assert fit.epochs * math.ceil(fit.rows / shape.batch) >= min(FEWEST_STEPS, all_steps)


@pytest.mark.parametrize("seconds", [20, 60, 120])
def test_a_probe_keeps_its_epochs_since_the_encoder_is_what_takes_time(seconds):
    probe = Shape(5000, 200, 256, 300, 300, {256: 60.0})
    fit = fit_run(probe, Speeds(2.0, 1e-6, 1e-4, 6.0, 1.0, keeping=5e-4), seconds)
    assert not fit.whole
    assert fit.epochs == 200
    assert fit.rows < 5000


@settings(max_examples=60, deadline=None)
@given(shapes, speeds, st.floats(10, 5000))
def test_run_and_trials_share_the_time(shape, speed, seconds):
    fit, left = share_out(shape, speed, seconds)
    assert 0 <= left <= seconds
    if left:
        assert fit.seconds <= (IN_FULL if fit.whole else EACH) * seconds + 1e-9
        assert closing_seconds(shape, speed, fit) + left <= seconds + 1e-9


@settings(max_examples=60, deadline=None)
@given(shapes, speeds, st.floats(10, 5000), st.floats(0.2, 5))
def test_more_time_never_trains_fewer_rows_in_full(shape, speed, seconds, times):
    one, more = sorted([seconds, seconds * times])
    less, rest = fit_run(shape, speed, one), fit_run(shape, speed, more)
    if less.length == rest.length:
        assert less.rows * less.epochs <= rest.rows * rest.epochs


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(2, 60), min_size=1, max_size=4),
    st.data(),
)
def test_a_search_that_is_behind_keeps_what_is_done_and_its_sizes(counts, data):
    counts = sorted(counts, reverse=True)
    plan = [Rung(count, 100 * 3**n, 50) for n, count in enumerate(counts)]
    now = data.draw(st.integers(0, len(plan) - 1))
    done = data.draw(st.integers(0, plan[now].trials))
    left = data.draw(st.floats(0, 500))
    costs = [data.draw(st.floats(0.1, 50)) for _ in plan]
    fewer = shrink(plan, now, done, left, costs)
    assert fewer[:now] == plan[:now]
    assert fewer[now].trials >= done or fewer[now].trials >= 2
    assert fewer[now].trials <= plan[now].trials
    trials = {(rung.rows, rung.validation): rung.trials for rung in plan}
    for rung in fewer:
        assert rung.trials <= trials[rung.rows, rung.validation]
    by_rows = {rung.rows: cost for rung, cost in zip(plan, costs, strict=True)}
    needed = max(0, fewer[now].trials - done) * costs[now]
    needed += sum(rung.trials * by_rows[rung.rows] for rung in fewer[now + 1 :])
    assert needed <= left or (fewer[now].trials == done and len(fewer) == now + 1)
    if len(fewer) > now + 1:  # else nothing that is tried could win
        assert fewer[-1].rows == plan[-1].rows


def test_one_more_run_is_made_where_time_is_left_after_the_last():
    plan = [Rung(9, 300, 200), Rung(3, 900, 200)]
    costs = [10.0, 30.0]
    assert grow(plan, 1, 3, 30.0, costs) == [plan[0], Rung(4, 900, 200)]
    assert grow(plan, 1, 3, 29.0, costs) == plan  # too long
    assert grow(plan, 1, 2, 90.0, costs) == plan  # one of those planned is next
    full = [Rung(MOST_TRIALS, 900, 200)]
    assert grow(full, 0, MOST_TRIALS, 90.0, [30.0]) == full


def test_enough_time_leaves_the_plan_as_it_is():
    plan = plan_rungs(QUICK, IDLE, 400)
    assert shrink(plan, 0, 0, 1e6, [10.0] * len(plan)) == plan


@pytest.mark.parametrize(("minutes", "trained"), [(3, 800), (10, 800)])
def test_the_quick_recipe_on_an_idle_machine_is_trained_in_full(minutes, trained):
    fit, left = share_out(QUICK, IDLE, 60 * minutes)
    assert fit.whole
    assert fit.rows == trained
    plan = plan_rungs(QUICK, IDLE, left)
    assert plan[0].trials >= 2


def test_ten_minutes_end_on_the_last_rung_with_all_rows():
    plan = plan_rungs(QUICK, IDLE, 400)
    assert plan[-1].rows == 800
    assert plan[0].trials >= WANTED


def test_a_machine_too_slow_for_a_trial_trains_what_fits():
    busy = Speeds(15.0, 1.7e-3, 1.0e-3, 45.0)
    fit, left = share_out(QUICK, busy, 120)
    assert left == 0
    assert not fit.whole
    assert fit.seconds <= 120
    assert fit.rows >= 100


def test_two_hundred_thousand_rows_are_cut_to_what_ten_minutes_hold():
    large = Shape(160_000, 1, 16, 20_000, 20_000, {512: 280.0, 256: 190.0, 128: 115.0, 64: 62.0})
    fit, left = share_out(large, IDLE, 560)
    assert not fit.whole
    assert fit.seconds <= 560 * EACH + 1e-6
    assert fit.rows >= 500
    assert fit.test >= 100
    plan = plan_rungs(fitted(large, fit), IDLE, left)
    assert plan[0].trials >= FEW
    assert plan[-1] == Rung(plan[-1].trials, fit.rows, fit.validation)


def test_a_length_is_cut_before_too_few_rows_are_left():
    long = Shape(50_000, 1, 16, 5000, 5000, {512: 500.0, 256: 250.0, 128: 125.0})
    whole = fit_run(long, IDLE, 1000)
    assert whole.length == 512
    hurried = fit_run(long, IDLE, 250)
    assert hurried.length < 512
    assert hurried.rows >= 1000
