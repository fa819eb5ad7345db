"""An export from beginning to end: written, asked in a process of its own, compared, published."""

import errno
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from files.publish import MANIFEST, verify
from files.read import read_json
from files.verify import sha256
from files.write import save_text, to_json
from job.exporting.card import export_card
from job.exporting.child import CheckerFailed, run_checker
from job.exporting.format import CHECKERS, Format, Parity, Source, Written
from job.exporting.place import (
    CARD,
    EXPORT,
    MAKER,
    place_of,
    rejected,
    settle,
    size_of,
    workplace,
)
from job.exporting.questions import Own
from job.exporting.table import FORMATS
from job.exporting.words import Words
from job.tasks.table import task_of
from report.parity import ParityTable, Side

FORM = 1  # of export.json


@dataclass(frozen=True)
class Exported:
    """Where an export is, and what its check showed; `new` where it was written now."""

    path: Path
    table: ParityTable
    new: bool = True

    @property
    def good(self) -> bool:
        return not self.table.failed


def export_run(source: Source, to: str, out: Path | None, rows: int, words: Words) -> Exported:
    """Write a run in the format `to`, check it on `rows` test rows, and publish it: as its folder,
    or where the check failed as DIR.rejected. Raises ValueError where it cannot be written, or
    where the place is another's."""
    chosen = FORMATS[to]
    target = place_of(source.folder, to, out)
    if (reason := chosen.refuses(source)) is not None:
        raise ValueError(f"--to {to}: {source.folder.path} cannot be written so: {reason}")
    chosen.needs()
    with workplace(target) as place:
        written = chosen.write(source, place)
        if written.joined:
            source = replace(source, decision=written.decision, joined=True)
        own = task_of(source.config).ask_rows(source, rows)
        table, record = check(source, chosen, written, own, place)
        record |= {"to": to, "rows": rows, "words": asdict(words)}
        name_base(place, words)
        card = export_card(source, chosen, written, table, words)
        save_text(place / CARD, card)
        save_text(place / EXPORT, to_json(record, indent=1) + "\n")
        path = rejected(target) if table.failed else target
        settle(place, path)
    # texts of test rows stay with the run: an export may be sent on
    record |= {"path": str(path), "differing": table.differing}
    try:
        save_text(records(source, to), to_json(record, indent=1) + "\n")
    except OSError as error:  # somebody else's run, exported to a folder of one's own
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        table = replace(table, notes=[*table.notes, f"{source.folder.path} keeps no record of it."])
    return Exported(path, table)


def name_base(place: Path, words: Words) -> None:
    """Let an adapter name its base by the hub's name, where the user told it. It was checked on the
    base of the training."""
    path = place / "adapter_config.json"
    if words.base_model is not None and path.is_file():
        values = read_json(path) | {"base_model_name_or_path": words.base_model}
        save_text(path, to_json(values, indent=2) + "\n")


def written_before(
    source: Source, to: str, out: Path | None, rows: int, words: Words
) -> Path | None:
    """The folder of an earlier export of just this model with these words, whole and good, that was
    checked on `rows` rows or more; None where it has to be written. Raises ValueError as place_of
    does."""
    target = place_of(source.folder, to, out)
    try:
        record = read_json(target / EXPORT, ["run", "to", "rows", "words", "failed"])
        verify(target)
    except ValueError:
        return None
    expected = json.loads(to_json(asdict(words)))  # as it stands there
    same = (record["run"].get("model"), record["to"], record["words"], record["failed"])
    if same != (run_digest(source), to, expected, []) or record["rows"] < rows:
        return None
    return target


def records(source: Source, to: str) -> Path:
    """Where the run itself keeps what its last export in a format showed."""
    path = source.folder.path / "exports" / f"{to}.json"
    path.parent.mkdir(exist_ok=True)
    return path


def run_digest(source: Source) -> str:
    """What tells the model of a run from that of another training of its name."""
    return sha256(source.folder.model / MANIFEST)


def check(
    source: Source, chosen: Format, written: Written, own: Own, place: Path
) -> tuple[ParityTable, dict[str, Any]]:
    """Ask what stands in `place`, and judge; the table, and what export.json says."""
    answers: dict[str, Any] = {}
    try:
        answers = run_checker(CHECKERS / chosen.checker, place, own.questions)
        parity = task_of(source.config).compare(source, written, own, answers)
        failed = chosen.judge(parity)
    except (CheckerFailed, KeyError, TypeError, ValueError) as error:
        parity, failed = Parity(0, None, None, None), [f"{chosen.tool} cannot answer: {error}"]
    table = make_table(source, chosen, written, own, parity, answers, size_of(place))
    table = replace(table, failed=failed)
    record = {
        "format": FORM,
        "made_by": MAKER,
        "run": {"name": source.config.run.name, "model": run_digest(source)},
        "asked": own.rows,
        "sides": [asdict(side) for side in table.sides],
        "unit": own.unit,
        "promise": chosen.promise,
        "failed": failed,
        "notes": [*table.notes],
        "peak_bytes": answers.get("peak"),
        "versions": answers.get("versions", {}),
        "extra": parity.extra,
    }
    return table, record


def make_table(
    source: Source, chosen: Format, written: Written, own: Own, parity: Parity,
    answers: dict[str, Any], size: int,
) -> ParityTable:  # fmt: skip
    """openloop and the tool side by side; a check that another tool had to answer says which."""
    version = answers.get("versions", {}).get(chosen.library)
    tool = answers.get("extra", {}).get("by") or f"{chosen.tool} {version or ''}".strip()
    rate = None
    if answers.get("seconds"):
        rate = answers.get("rows", answers.get("tokens", 0)) / answers["seconds"]
    sides = [
        Side(f"openloop, {own.dtype}", own.count / own.seconds, size_of(source.folder.model),
             accuracy=mean(parity.own_right)),
        Side(
            tool, rate, size,
            None if parity.equal is None else (parity.equal, parity.rows),
            parity.shares, parity.outputs, mean(parity.right),
        ),
    ]  # fmt: skip
    return ParityTable(
        sides, own.rows, own.unit, chosen.promise, differing=parity.differing,
        notes=[*written.notes, *own.notes],
    )  # fmt: skip


def mean(right: np.ndarray | None) -> float | None:
    """A share of rows; None where there are none."""
    return None if right is None or not len(right) else float(right.mean())
