"""An error about rows, beyond which the rest of a source can still be looked at."""

from collections.abc import Sequence


class RefusedError(ValueError):
    """Rows for which a run is refused. `kind` is "overlap", which data.on_overlap = "warn" lets
    pass, or "bad_row" or "cleaning", which data.on_bad_row = "skip" does; `rows` are the addresses
    of some or all of them."""

    def __init__(self, message: str, kind: str, rows: Sequence[str]) -> None:
        super().__init__(message)
        self.kind, self.rows = kind, list(rows)
