"""What /metrics says, in Prometheus' text form; no library, a few counters and histograms."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass
class Histogram:
    """How often a value was at most each bound, their sum and their number."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def note(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(SECONDS, value)] += 1
        self.total += value

    def lines(self, name: str) -> Iterable[str]:
        """Its samples, each bucket with those below it."""
        below = 0
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {below}"


@dataclass
class Metrics:
    """Everything that is counted; the event loop alone writes it."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # (route, status)
    labels: Counter[str] = field(default_factory=Counter)  # how often each was the answer
    totals: Counter[str] = field(default_factory=Counter)
    request: Histogram = field(default_factory=Histogram)
    queue: Histogram = field(default_factory=Histogram)
    work: Histogram = field(default_factory=Histogram)

    def text(self, info: Mapping[str, str], gauges: Mapping[str, tuple[str, float]]) -> str:
        """The whole page. `info` are labels of openloop_info, `gauges` name -> (help, value)."""
        lines = list(head("info", "gauge", "The run that answers."))
        named = ",".join(f'{key}="{escape(value)}"' for key, value in info.items())
        lines.append(f"openloop_info{{{named}}} 1")
        lines += head("requests_total", "counter", "Requests by route and status.")
        lines += [
            f'openloop_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self.requests.items())
        ]
        for name, what in TOTALS.items():
            lines += head(name, "counter", what)
            lines.append(f"openloop_{name} {self.totals[name]}")
        lines += head("answers_total", "counter", "How often each label was the answer.")
        lines += [
            f'openloop_answers_total{{label="{escape(label)}"}} {count}'
            for label, count in sorted(self.labels.items())
        ]
        for name, (what, value) in gauges.items():
            lines += [*head(name, "gauge", what), f"openloop_{name} {value:g}"]
        for name, what, histogram in (
            ("request_seconds", "From the request to its answer.", self.request),
            ("queue_seconds", "In line, before the model began.", self.queue),
            ("work_seconds", "From the model's beginning to the answer.", self.work),
        ):
            lines += [*head(name, "histogram", what), *histogram.lines(f"openloop_{name}")]
        return "\n".join(lines) + "\n"


TOTALS = {
    "texts_total": "Texts or conversations that were answered.",
    "tokens_total": "Tokens that were read of them.",
    "truncated_total": "Texts of which some was not read.",
    "unsure_total": "Answers that are unsure.",
    "reply_tokens_total": "Tokens that were written in replies.",
    "reloads_total": "Newer runs that took over.",
    "reload_failures_total": "Newer runs that could not be opened.",
}


def head(name: str, kind: str, what: str) -> tuple[str, str]:
    """The two lines before a metric's samples."""
    return f"# HELP openloop_{name} {what}", f"# TYPE openloop_{name} {kind}"


def escape(value: str) -> str:
    """A label's value between quotes; what is no Unicode is shown."""
    value = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value.encode("utf-8", errors="backslashreplace").decode()
