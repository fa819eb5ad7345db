"""What predictions show beyond their figures: against scikit-learn's, and recounted."""

import numpy as np
import pytest

from job.reporting.figures import by_length, reliability, suspects, thresholds
from job.reporting.predictions import Line

NAMES = ("neg", "pos")


def make_lines(count=500, seed=0):
    random = np.random.default_rng(seed)
    lines = []
    for n in range(count):
        share = float(random.random())
        label = NAMES[int(random.random() < 0.3 + 0.4 * share)]
        shares = {"neg": 1 - share, "pos": share}
        answer = max(shares, key=lambda name: shares[name])
        lines.append(Line(f"t.csv:{n}", "text", label, answer, shares, int(random.integers(5, 90))))
    return lines


def test_the_brier_score_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    lines = make_lines()
    truth, share = [x.label == "pos" for x in lines], [x.shares["pos"] for x in lines]
    assert reliability(lines).brier == pytest.approx(2 * metrics.brier_score_loss(truth, share))


def test_the_reliability_diagram_is_scikit_learns():
    calibration = pytest.importorskip("sklearn.calibration")
    lines = make_lines()
    right, sure = [x.right for x in lines], [x.sure for x in lines]
    wanted, means = calibration.calibration_curve(right, sure, n_bins=10)
    groups = [g for g in reliability(lines).groups if g.rows]
    assert [g.right / g.rows for g in groups] == pytest.approx(wanted)
    assert [g.mean for g in groups] == pytest.approx(means)


def test_the_calibration_error_is_that_of_a_case_by_hand():
    def line(share, right):
        shares = {"pos": share, "neg": 1 - share}
        return Line("a:1", "t", "pos" if right else "neg", "pos", shares, None)

    lines = [line(0.95, True), line(0.95, True), line(0.65, True), line(0.65, False)]
    assert reliability(lines).ece == pytest.approx(0.5 * 0.05 + 0.5 * 0.15)


def test_a_row_without_all_shares_has_no_brier_score():
    line = Line("a:1", "t", "x", "y", {"y": 0.4, "z": 0.2}, None)
    assert reliability([line]).brier is None


def test_the_thresholds_are_a_recount():
    lines = make_lines()
    found = thresholds(lines, NAMES)
    assert [t.share for t in found] == [n / 100 for n in range(101)]
    for one in found:
        left = [x for x in lines if x.sure >= one.share]
        assert (one.answered, one.right) == (len(left), sum(x.right for x in left))
        for name, (answered, right) in zip(NAMES, one.classes, strict=True):
            own = [x for x in left if x.predicted == name]
            assert (answered, right) == (len(own), sum(x.right for x in own))


def test_groups_by_length_hold_each_row_once_and_unknown_lengths_none():
    lines = make_lines()
    groups = by_length(lines)
    assert sum(g.rows for g in groups) == len(lines)
    assert sum(g.right for g in groups) == sum(x.right for x in lines)
    assert [g.mean for g in groups] == sorted(g.mean for g in groups)
    assert by_length([Line("a:1", "t", "x", "x", {"x": 1.0}, None)]) == []


def test_only_flipped_labels_are_suspected_where_classes_lie_apart():
    random = np.random.default_rng(1)
    lines, flipped = [], set()
    for n in range(400):
        truth = n % 2
        share = float(np.clip(0.85 * truth + 0.1 + random.normal(0, 0.1), 0.01, 0.99))
        label = truth
        if n % 20 == 0:
            label, _ = 1 - truth, flipped.add(f"t:{n}")
        shares = {"neg": 1 - share, "pos": share}
        answer = max(shares, key=lambda name: shares[name])
        lines.append(Line(f"t:{n}", "text", NAMES[label], answer, shares, None))
    found = suspects(lines)
    assert len(found) > 0.3 * len(flipped)  # half of them lie above the mean of their own class
    assert {line.address for _, line, _ in found} <= flipped
    assert all(name != line.label for _, line, name in found)
    assert [margin for margin, _, _ in found] == sorted((m for m, _, _ in found), reverse=True)
