"""A learning-rate range test as text and as a curve."""

from collections.abc import Sequence

from report.format import align_table, format_number
from report.page.charts import Series, chart
from report.page.drawings import thin

SHOWN = 20  # rows of the table
ABOUT = "a range to look in, from one short test: how long a run is decides within it"


def rates_svg(rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float]) -> str:
    """The loss over the rate."""
    pairs = list(zip(rates, losses, strict=True))
    soft = list(zip(rates, smoothed, strict=True))
    series = [
        Series("loss", pairs, marks=False, faint=True),
        Series("smoothed", soft, marks=False),
    ]
    return chart(series, "Loss while the rate rises", "learning rate", "loss", log_x=True)


def rates_lines(
    rates: Sequence[float], smoothed: Sequence[float], low: float | None, high: float | None,
    broken: bool,
) -> list[str]:  # fmt: skip
    """The table, and the range in words."""
    points = thin(list(zip(rates, smoothed, strict=True)), SHOWN)
    rows = [[f"{rate:.2e}", format_number(loss)] for rate, loss in points]
    lines = align_table([["rate", "loss, smoothed"], *rows], right=(0, 1))
    if broken:
        lines.append(f"at {rates[-1]:.2e} the loss left all bounds, and the test was over")
    if low is None or high is None:
        return [*lines, "the loss does not fall at any of these rates: no range can be told"]
    falls = smoothed[-1] <= min(smoothed)
    more = "; it is lowest where the test ends, so higher rates may do as well" if falls else ""
    return [*lines, f"the loss falls from about {low:.1e} to {high:.1e}: {ABOUT}{more}"]
