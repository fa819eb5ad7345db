"""fit(): when it evaluates, saves and stops; and that a resumed run goes on to the same bits."""

import math

import pytest
import torch

from engine import loop
from engine.checkpoint import load_optimizer, load_weights, read_state, save_checkpoint
from engine.evaluate import evaluate
from engine.losses import cross_entropy
from engine.metrics import SingleCounter
from engine.optim import Schedule
from engine.stop import Stopped, StopRequest
from engine.storage import newest_valid

SIGTERM = 15


@pytest.mark.parametrize(
    ("every", "evaluations"),
    [(None, [2, 4, 6]), (1, [1, 2, 3, 4, 5, 6]), (4, [4, 6]), (100, [6])],
)
def test_evaluates_on_time_and_always_at_the_end(make_rig, every, evaluations):
    rig = make_rig(epochs=3, evaluate_every=every)  # 2 optimizer steps an epoch
    rig.fit()
    assert rig.evaluated == evaluations
    assert rig.saved == evaluations  # each evaluation's weights are kept
    assert rig.progress.evaluated_step == 6


def test_saves_between_evaluations_where_asked(make_rig):
    rig = make_rig(epochs=3, evaluate_every=5, save_every=2)
    rig.fit()
    assert rig.evaluated == [5, 6]
    assert rig.saved == [2, 4, 5, 6]


def test_max_steps_in_the_middle_of_an_epoch_ends_with_an_evaluation(make_rig):
    rig = make_rig(epochs=3, max_steps=3)
    rig.fit()
    assert rig.evaluated == [2, 3]


def test_early_stopping_ends_the_run_and_is_kept(make_rig):
    rig = make_rig(epochs=3, evaluate_every=1)

    def evaluate_until_three(progress):
        progress.stopped_early = progress.step == 3

    rig.fit(evaluate_until_three)
    assert rig.progress.step == 3
    assert rig.saved == [1, 2, 3]
    rig.fit()  # and a resumed run has nothing left to do
    assert rig.progress.step == 3
    assert rig.evaluated == [1, 2, 3]


def run_small_evaluation(make_rig, rig):
    """A real evaluation, in the middle of which randomness is drawn and modes change."""

    def run(progress):
        evaluate(
            rig.model, make_rig.cut(rig.rows, 4), cross_entropy,
            SingleCounter(2, torch.device("cpu")), rig.precision, lambda *_: torch.rand(5),
        )  # fmt: skip

    return run


@pytest.mark.parametrize("every", [None, 1, 3])
def test_evaluating_more_often_does_not_change_what_is_trained(make_rig, every):
    plain, watched = make_rig(epochs=3), make_rig(epochs=3, evaluate_every=every, save_every=1)
    plain.fit()
    watched.fit(run_small_evaluation(make_rig, watched), on_step=lambda *_: torch.rand(3))
    assert [r.loss for r in watched.results] == [r.loss for r in plain.results]
    torch.testing.assert_close(watched.weights(), plain.weights(), rtol=0, atol=0)


def test_randomness_drawn_before_the_run_does_not_change_it(make_rig):
    rigs = [make_rig(), make_rig()]
    for rig, seed in zip(rigs, (1, 2), strict=True):
        torch.manual_seed(seed)
        rig.fit()
    torch.testing.assert_close(rigs[0].weights(), rigs[1].weights(), rtol=0, atol=0)


def test_dropout_differs_between_micro_batches_and_epochs(make_rig):
    rig = make_rig(epochs=2)
    masks = []
    rig.model.dropout.register_forward_hook(lambda m, i, out: masks.append(tuple(out.shape)))
    draws = []
    plain = rig.compute_loss

    def compute_loss(model, batch):
        draws.append(torch.rand(1).item())
        return plain(model, batch)

    rig.compute_loss = compute_loss
    rig.fit()
    assert len(masks) == len(set(draws)) == 8


# ---- resume ----

STEPS = 6  # 3 epochs of 2 optimizer steps: windows of 2 + 2 micro-batches


def resume_rig(make_rig, **how):
    rig = make_rig(epochs=3, accumulate=2, evaluate_every=3, **how)
    rig.schedule = Schedule("linear", rig.plan.total_steps, 2)
    return rig


def saver(rig, root):
    def save(progress):
        save_checkpoint(root, rig.model, rig.optimizer, rig.scaler, progress, 2, {})

    return save


def stop_after(step):
    """A stop request that comes while optimizer step `step` runs, and the hook that makes it."""
    stop = StopRequest()

    def on_step(result, progress):
        if progress.step == step:
            stop.signal = SIGTERM

    return stop, on_step


def restore(rig, root):
    folder, said = newest_valid(root)
    assert said == []
    state = read_state(folder)
    load_weights(folder, rig.model)
    load_optimizer(folder, rig.model, rig.optimizer)
    rig.scaler.load_state_dict(state["scaler"])
    rig.progress = type(rig.progress)(**state["progress"])


def check_same_run(resumed, whole):
    torch.testing.assert_close(resumed.weights(), whole.weights(), rtol=0, atol=0)
    ours, theirs = resumed.optimizer.state_dict(), whole.optimizer.state_dict()
    torch.testing.assert_close(ours["state"], theirs["state"], rtol=0, atol=0)
    assert resumed.progress == whole.progress
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()


@pytest.mark.parametrize("how", [{}, {"fused": False}, {"sgd": True}, {"dtype": "fp16"}])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_run_stopped_at_any_step_goes_on_to_the_same_bits(make_rig, tmp_path, step, how):
    whole, stopped, resumed = (resume_rig(make_rig, **how) for _ in range(3))
    whole.fit(run_small_evaluation(make_rig, whole))

    stop, on_step = stop_after(step)
    stopped.fit(
        run_small_evaluation(make_rig, stopped), saver(stopped, tmp_path), on_step, stop
    )  # fmt: skip
    assert stopped.progress.step == step
    assert stopped.saved[-1] == step
    torch.manual_seed(99)  # another process would start with other randomness
    with torch.no_grad():
        for p in resumed.model.parameters():
            p.add_(1.0)
    restore(resumed, tmp_path)
    resumed.fit(run_small_evaluation(make_rig, resumed), saver(resumed, tmp_path))

    check_same_run(resumed, whole)
    losses = [r.loss for r in stopped.results] + [r.loss for r in resumed.results]
    assert losses == [r.loss for r in whole.results]
    rates = stopped.rates + resumed.rates
    assert rates == whole.rates
    assert sorted(set(stopped.evaluated + resumed.evaluated)) == whole.evaluated == [3, 6]


def test_a_resumed_run_replays_its_skipped_steps(make_rig, tmp_path):
    """fp16 at a scale that overflows: the scale and its counters are part of a checkpoint."""
    rigs = [resume_rig(make_rig, dtype="fp16") for _ in range(3)]
    for rig in rigs:
        rig.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=2)
    whole, stopped, resumed = rigs
    whole.fit()
    assert whole.progress.skipped > 0
    stop, on_step = stop_after(2)
    stopped.fit(save=saver(stopped, tmp_path), on_step=on_step, stop=stop)
    resumed.scaler = torch.amp.GradScaler("cpu", growth_interval=2)
    restore(resumed, tmp_path)
    resumed.fit()
    check_same_run(resumed, whole)


def test_a_stop_request_ends_after_the_current_step_without_evaluating(make_rig):
    rig = make_rig(epochs=3)
    stop, on_step = stop_after(2)
    rig.fit(on_step=on_step, stop=stop)
    assert (rig.progress.step, rig.evaluated, rig.saved) == (2, [], [2])


def test_a_stop_between_the_last_step_and_its_evaluation_evaluates_on_resume(make_rig):
    rig = make_rig(epochs=1)
    stop, on_step = stop_after(2)
    rig.fit(on_step=on_step, stop=stop)
    assert rig.evaluated == []
    rig.fit()
    assert (rig.evaluated, len(rig.results)) == ([2], 2)


def test_an_evaluation_stopped_half_way_is_done_again(make_rig, tmp_path):
    rig = make_rig(epochs=2)
    stop = StopRequest()

    def cut_short(progress):
        stop.signal = SIGTERM
        raise Stopped

    rig.fit(cut_short, saver(rig, tmp_path), stop=stop)
    assert (rig.progress.step, rig.progress.evaluated_step) == (2, -1)
    assert read_state(newest_valid(tmp_path)[0])["progress"]["evaluated_step"] == -1
    again = make_rig(epochs=2)
    restore(again, tmp_path)
    again.fit()
    assert again.evaluated == [2, 4]


def test_a_stop_during_the_first_evaluation_of_a_resumed_run_trains_no_step(make_rig):
    rig = make_rig(epochs=2)
    stop, on_step = stop_after(2)
    rig.fit(on_step=on_step, stop=stop)
    stop = StopRequest()

    def cut_short(progress):
        stop.signal = SIGTERM
        raise Stopped

    rig.fit(cut_short, stop=stop)
    assert rig.progress.step == 2


def test_too_few_micro_batches_are_an_error_not_a_hang(make_rig):
    rig = make_rig(epochs=2)
    with pytest.raises(ValueError, match="the plan has 4 an epoch"):
        rig.fit(batches=lambda epoch, start: make_rig.cut(rig.rows, 4)[start:])


def test_too_many_micro_batches_are_an_error(make_rig):
    rig = make_rig(epochs=9)
    with pytest.raises(ValueError, match="the plan has 4 an epoch"):
        rig.fit(batches=lambda epoch, start: make_rig.cut(rig.rows, 2)[start:])


class Arrival:
    """Stands for a CUDA event: figures that come over while the next step is launched."""

    def __init__(self, log):
        self.log = log

    def synchronize(self):
        self.log.append("read")


def run_with_log(make_rig, monkeypatch, late, accumulate):
    """([launches and reads in order], [what fit() did])"""
    log, steps, launch = [], [], loop.train_step
    rig = make_rig(accumulate=accumulate, epochs=3, evaluate_every=3)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", lambda *args: log.append("launch") or launch(*args))
        if late:
            patch.setattr(loop, "send_home", lambda figures: (figures, Arrival(log)))
        rig.fit(on_step=lambda result, progress: steps.append((result, vars(progress).copy())))
    return log, [steps, rig.rates, rig.evaluated, rig.saved]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_figures_read_late_are_the_same_in_the_same_order(make_rig, monkeypatch, accumulate):
    log, late = run_with_log(make_rig, monkeypatch, True, accumulate)
    _, at_once = run_with_log(make_rig, monkeypatch, False, accumulate)
    assert late == at_once
    assert log[:3] == ["launch", "launch", "read"]  # one step is launched before a read
    assert log.count("read") == log.count("launch") == len(late[0])


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_step_launched_after_a_broken_one_moves_no_weight(make_rig, monkeypatch, broken):
    monkeypatch.setattr(loop, "send_home", lambda figures: (figures, Arrival([])))
    rig, calls, before = make_rig(epochs=3, accumulate=1), [], []
    compute, first = rig.compute_loss, next(rig.model.parameters())
    first.register_hook(lambda g: g * math.inf if broken == "gradient" and len(calls) == 2 else g)

    def compute_loss(model, batch):
        calls.append(1)
        if len(calls) == 2:
            before.extend(p.detach().clone() for p in model.parameters())
        loss = compute(model, batch)
        return loss * math.nan if broken == "loss" and len(calls) == 2 else loss

    rig.compute_loss = compute_loss
    with pytest.raises(loop.NonFiniteError, match="step 2 "):
        rig.fit()
    assert len(calls) == 3  # the third one was launched already
    assert rig.optimizer.found_inf is None  # who goes on all the same can
    assert all(torch.equal(a, b) for a, b in zip(before, rig.model.parameters(), strict=True))
    assert rig.progress.step == 1


def test_a_stop_while_the_last_batch_of_an_epoch_is_used_up_is_saved(make_rig):
    rig, stop = make_rig(evaluate_every=100), StopRequest()

    def batches(epoch, start):
        yield from rig.batches(epoch, start)
        stop.signal = SIGTERM

    rig.fit(batches=batches, stop=stop)
    assert rig.saved == [rig.progress.step] == [2]


@pytest.mark.parametrize("late", [False, True])
def test_the_step_before_an_error_is_reported(make_rig, monkeypatch, late):
    if late:
        monkeypatch.setattr(loop, "send_home", lambda figures: (figures, Arrival([])))
    rig = make_rig(accumulate=1)

    def batches(epoch, start):
        yield from list(rig.batches(epoch, start))[:3]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        rig.fit(batches=batches)
    assert len(rig.results) == 3
