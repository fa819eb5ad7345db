"""What validation rows say of a model's logits: a temperature, thresholds, a limit below which an
answer is unsure; and whether a probability is what it says. In float64, numpy alone: nothing here
loads torch.
"""

import math
from dataclasses import dataclass, field

import numpy as np

# validation rows from which a temperature can be told: on fewer not even the share that is right is
# known to within three points or so, and a temperature cannot do better than that
FEWEST_ROWS = 500
FEWEST_WRONG = 5  # of them answered wrongly: without any, the steeper the better, without end
SURELY = 6.635  # twice the gain in log-likelihood that luck reaches in 1 % of all cases (chi2)
FEWEST_POSITIVES = 20  # validation rows of a label from which its threshold can be told
HOTTEST = 20.0  # temperatures lie between 1 / HOTTEST and HOTTEST
COVERAGES = 20  # shares of the answers that a limit may let pass: 5 %, 10 %, … 100 %
RISK = 0.05  # of a limit whose answers are less precise than was asked for
BINS = 10  # of a reliability diagram (Guo et al. 2017, arXiv:1706.04599, take 15)


# ---- temperature -----------------------------------------------------------------------------


def negative_log_likelihood(
    kind: str, logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0
) -> float:
    """Mean of -log p: over the rows for one class a row, over rows and labels for several. logits
    (N, C) float64, labels (N,) class indices or (N, C) of 0 and 1."""
    scaled = logits / temperature
    if kind == "multi":
        return float(np.logaddexp(0, np.where(labels > 0.5, -scaled, scaled)).mean())
    own = np.take_along_axis(scaled, labels[:, None], axis=1)[:, 0]
    return float((np.logaddexp.reduce(scaled, axis=1) - own).mean())


def slopes(
    kind: str, logits: np.ndarray, labels: np.ndarray, steepness: float
) -> tuple[float, float]:
    """First and second derivative of the sum of -log p after 1 / temperature, of which it is a
    convex function."""
    shares = probabilities(kind, logits, 1 / steepness)
    if kind == "multi":
        first = (logits * (shares - (labels > 0.5))).sum()
        return float(first), float((logits**2 * shares * (1 - shares)).sum())
    mean = (shares * logits).sum(axis=1)  # (N,)
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    spread = (shares * (logits - mean[:, None]) ** 2).sum()
    return float((mean - own).sum()), float(spread)


def probabilities(kind: str, logits: np.ndarray, temperature: float) -> np.ndarray:
    """(N, C) from logits (N, C) float64: of one class a row the softmax, of several labels the
    sigmoid of each. Logits that are no numbers, and of one class infinite ones, give NaN."""
    with np.errstate(invalid="ignore"):  # inf - inf, which is NaN
        scaled = logits / temperature
        if kind == "multi":
            return np.exp(-np.logaddexp(0, -scaled))
        parts = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(parts / parts.sum(axis=1, keepdims=True))


def fit_temperature(kind: str, logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least mean -log p (Guo et al. 2017): Newton's method in
    1 / temperature, between bounds that close in on it. logits (N, C) float64, N > 0.

    1 where no temperature is better. Six digits: what comes behind them depends on the machine.
    """
    low, high = 1 / HOTTEST, HOTTEST  # of the steepness, 1 / temperature
    steepness = 1.0
    if slopes(kind, logits, labels, low)[0] >= 0:
        steepness = low
    elif slopes(kind, logits, labels, high)[0] <= 0:
        steepness = high
    else:
        for _ in range(100):
            first, second = slopes(kind, logits, labels, steepness)
            low, high = (low, steepness) if first > 0 else (steepness, high)
            step = steepness - first / second if second > 0 else math.inf
            before = steepness
            steepness = step if low < step < high else math.sqrt(low * high)
            if abs(steepness - before) < 1e-12 * before:
                break
    temperature = float(f"{1 / steepness:.6g}")
    plain, fitted = (negative_log_likelihood(kind, logits, labels, t) for t in (1.0, temperature))
    return temperature if fitted < plain else 1.0


def gain(kind: str, logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Twice what a temperature adds to the log-likelihood of the rows, to compare with SURELY. Rows
    of several labels count as one each: their labels depend on each other."""
    plain, fitted = (negative_log_likelihood(kind, logits, labels, t) for t in (1.0, temperature))
    return 2 * len(logits) * (plain - fitted)


def count_wrong(kind: str, logits: np.ndarray, labels: np.ndarray) -> int:
    """Rows whose likeliest class is not their own; of several labels, how many are wrong."""
    if kind == "multi":
        return int(((logits > 0) != (labels > 0.5)).sum())
    return int((logits.argmax(axis=1) != labels).sum())


# ---- thresholds ------------------------------------------------------------------------------


def fit_threshold(logits: np.ndarray, held: np.ndarray) -> float:
    """The logit that a label's has to exceed for the best F1 on these rows; 0 where none is better
    than that. logits (N,) float64, held (N,) bool.

    Midway between two rows' logits. Of cuts with one F1 the one nearest to 0.
    """
    order = np.argsort(-logits, kind="stable")
    sorted_logits, hits = logits[order], held[order].cumsum()
    following = np.append(sorted_logits[1:], sorted_logits[-1] - 2)  # the last cut lets all pass
    taken = np.arange(1, len(logits) + 1)
    f1 = 2 * hits / (taken + held.sum())
    cuts = (sorted_logits + following) / 2
    possible = (cuts < sorted_logits) & (cuts >= following)  # equal logits pass, or not, together
    plain = logits > 0
    before = 2 * (plain & held).sum() / max(1, plain.sum() + held.sum())
    best = f1[possible].max(initial=0.0)
    if best <= before + 1e-12:
        return 0.0
    chosen = cuts[possible & (f1 >= best - 1e-12)]
    return float(chosen[np.abs(chosen).argmin()])


# ---- unsure ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """The least sure that an answer may be. `answered` of the rows are that sure, and `right` of
    these are right; None of all three where no limit is precise enough."""

    value: float | None
    answered: int = 0
    right: int = 0


def fit_limit(sure: np.ndarray, right: np.ndarray, min_precision: float) -> Limit:
    """The limit that lets most answers pass and still shows that at least `min_precision` of them
    are right: were they fewer, so good a count would come in at most RISK of all draws of the rows
    (the exact binomial test). sure (N,) and right (N,) bool, of each answer.

    The plain share of these rows would promise too much: a limit chosen to just reach it misses it
    on new rows every other time. So would the best of many limits, each tried at RISK: the more are
    tried, the more of them pass by luck. They are COVERAGES, fixed beforehand, and tried in one
    order, from the surest answers on, up to the first that shows too little: RISK is then that of
    them all (fixed-sequence testing, Maurer, Hothorn and Lehmacher 1995). Parts so small that not
    even all right would show enough are passed over.
    """
    ordered, best = np.sort(sure)[::-1], Limit(None)
    for step in range(1, COVERAGES + 1 if len(sure) else 1):
        count = math.ceil(len(sure) * step / COVERAGES)
        value = 0.0 if step == COVERAGES else float(ordered[count - 1])
        passed = sure >= value
        answered, hits = int(passed.sum()), int(right[passed].sum())
        if tail(answered, answered, min_precision) > RISK:
            continue
        if tail(answered, hits, min_precision) > RISK:
            break
        best = Limit(value, answered, hits)
    return best


def tail(count: int, hits: int, share: float) -> float:
    """How likely at least `hits` of `count` are, each with the probability `share`."""
    misses = np.arange(count - hits + 1)
    logs = (
        np.append(0.0, np.log((count - misses[1:] + 1) / misses[1:])).cumsum()  # of (count, misses)
        + misses * math.log1p(-share)
        + (count - misses) * math.log(share)
    )
    return min(1.0, float(np.exp(logs).sum()))


# ---- is a probability what it says? ----------------------------------------------------------


@dataclass
class Bins:
    """Answers by how sure they are, in BINS of equal width: sums, whatever the number of rows.
    Those that are NaN sure belong in none: `lost` counts them."""

    sure: np.ndarray = field(default_factory=lambda: np.zeros(BINS))  # (BINS,) summed
    right: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    rows: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    lost: int = 0

    def add(self, sure: np.ndarray, right: np.ndarray) -> None:
        """Take in answers: how sure (B,) from 0 to 1, or NaN, and whether right (B,) bool."""
        known = ~np.isnan(sure)
        self.lost += int((~known).sum())
        sure, right = sure[known], right[known]
        place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
        self.sure += np.bincount(place, sure, BINS)
        self.right += np.bincount(place[right], minlength=BINS)
        self.rows += np.bincount(place, minlength=BINS)

    def error(self) -> float:
        """The expected calibration error: the mean distance, over the answers, of what a bin says
        from how many of it are right (Naeini et al. 2015)."""
        return float(np.abs(self.sure - self.right).sum() / max(1, self.rows.sum()))


class CalibrationCounter:
    """How far probabilities can be trusted without a temperature ("before") and with it ("after"),
    over batches. For one class a row by the share of the answer; for several labels by that of each
    label, and whether it holds. Rows whose logits are no finite numbers are `lost`: they have no
    probabilities, and no figure counts them."""

    def __init__(self, kind: str, temperature: float):
        self.kind, self.temperatures = kind, {"before": 1.0, "after": temperature}
        self.bins = {name: Bins() for name in self.temperatures}
        self.loss = dict.fromkeys(self.temperatures, 0.0)
        self.rows = self.lost = 0

    def update(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """logits (B, C), labels (B,) class indices or (B, C) of 0 and 1."""
        known = np.isfinite(logits).all(axis=1)
        self.lost += int((~known).sum())
        logits, labels = logits[known].astype(np.float64), labels[known]
        if len(logits) == 0:
            return
        self.rows += len(logits)
        for name, temperature in self.temperatures.items():
            loss = negative_log_likelihood(self.kind, logits, labels, temperature)
            self.loss[name] += loss * len(logits)
            shares = probabilities(self.kind, logits, temperature)
            if self.kind == "multi":
                self.bins[name].add(shares.ravel(), labels.ravel() > 0.5)
                continue
            answer = logits.argmax(axis=1)
            sure = np.take_along_axis(shares, answer[:, None], axis=1)[:, 0]
            self.bins[name].add(sure, answer == labels)

    def results(self) -> dict[str, float | int]:
        """ "n", and "nll_before", "nll_after", "ece_before", "ece_after"; "lost" where rows are."""
        nll = {f"nll_{name}": loss / max(1, self.rows) for name, loss in self.loss.items()}
        ece = {f"ece_{name}": bins.error() for name, bins in self.bins.items()}
        return {"n": self.rows, **nll, **ece} | ({"lost": self.lost} if self.lost else {})
