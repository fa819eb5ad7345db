"""tune.html: a search as a page."""

from pathlib import Path

from job.tuning.planned import Planned
from job.tuning.record import Record

PAGE = "tune.html"


def write_page(record: Record, planned: Planned, folder: Path) -> Path:
    path = folder / PAGE
    return path
