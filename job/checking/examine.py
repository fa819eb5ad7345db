"""The examination of a run's data, one check after the other, and the file of what was found."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from configs.schema import Config
from data.write import json_text
from job.checking.classes import examine_classes
from job.checking.copies import examine_near, examine_templates
from job.checking.examined import examine_plan, open_examined
from job.checking.groups import examine_groups
from job.checking.labels import examine_labels
from job.checking.texts import examine_language, examine_letters
from job.checking.written import check_out, write_lines
from report.check import Check, Finding
from report.format import WARNING

FILE = "check.jsonl"


def examine(config: Config, guessed: Sequence[str] = ()) -> Iterator[Check]:
    """The checks as they are made; first what was `guessed` of a table, if it was. Raises
    ValueError for a source that cannot be read."""
    yield from (guess_check("" if i else "guessed", line) for i, line in enumerate(guessed))
    examined, refused = open_examined(config)
    yield from examine_plan(examined, refused)
    yield examine_classes(examined)
    yield examine_groups(examined)
    templates, forms = examine_templates(examined)
    yield examine_near(examined, forms)
    yield templates
    yield examine_labels(examined)
    yield examine_letters(examined)
    yield examine_language(examined)


def guess_check(name: str, line: str) -> Check:
    """What was guessed of a table, a warning among it as one."""
    if not line.startswith(WARNING):
        return Check(name, line)
    message = line.removeprefix(WARNING)
    finding = Finding("guess", "warning", message, (), "data.label")
    return Check(name, "the guess is doubtful", (finding,), "data.label names the column")


def findings_path(config: Config, named: Path | None, inputs: Sequence[Path | None]) -> Path:
    """Where the findings go: the file named, or check.jsonl here, or check2.jsonl where the recipe
    drops the rows that check.jsonl names.

    Raises ValueError where that is the file of data.drop_rows, which a person has edited, and as
    check_out() does.
    """
    drops = config.data.drop_rows
    edited = None if drops is None else Path(drops).expanduser().resolve()
    if named is None:
        named = Path(FILE)
        if named.resolve() == edited:
            named = Path("check2.jsonl")
    if named.resolve() == edited:
        raise ValueError(f"--out: {named} is the file of data.drop_rows; name another one")
    check_out(named, config, inputs)
    return named


def write_findings(path: Path, checks: Sequence[Check]) -> Path | None:
    """Write all findings, one JSON object a line, as write_lines() does; where what was there is
    kept."""
    return write_lines(
        path, [json_text(one.as_dict()) for check in checks for one in check.findings]
    )
