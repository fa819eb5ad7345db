"""What a run is about to do, as plain text: the banner before step 1 and all of `--dry-run`."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from report.format import (
    COLUMNS,
    align_table,
    clean_line,
    format_bytes,
    format_count,
    format_number,
    format_seconds,
    format_share,
    join_names,
    pad,
    shorten,
    wrap,
)

TITLE_COLUMNS = 14  # the left margin in which each line's title stands
CELL_COLUMNS = 20  # a table cell is cut here, so that five of them fit a line
MOST_LABELS = 12  # a label balance longer than this is cut, and says by how much


@dataclass(frozen=True)
class Truncation:
    """What `data.max_length` cuts from one split."""

    rows: int
    cut_rows: int  # rows that lost something
    tokens: int  # tokens before the cut
    cut_tokens: int  # tokens that the model never sees


@dataclass(frozen=True)
class Group:
    """One parameter group of the optimizer."""

    name: str
    tensors: int
    parameters: int
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Memory:
    """Estimated bytes at the highest point of a training step."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    process: int = 0  # held before step 1, the weights among it; 0 where that is not known
    bag: int = 0  # of a bag of n-grams beside the encoder, after the training

    @property
    def total(self) -> int:
        held = max(self.process, self.weights)
        return held + self.gradients + self.optimizer + max(self.activations, self.bag)


@dataclass(frozen=True)
class Plan:
    """Everything that is known before step 1."""

    name: str
    folder: str
    model: str  # where the backbone comes from
    data: str  # where the rows come from
    rows: Mapping[str, int]  # split -> rows
    balance: Mapping[str, Mapping[str, int]]  # split -> label -> rows; empty for regression
    truncation: Mapping[str, Truncation]  # split -> what max_length cuts
    length: Sequence[str]  # how much of a text is read, and what that costs
    trainable: int  # parameters that train
    parameters: int  # parameters in all
    groups: Sequence[Group]
    micro_batch_size: int
    accumulate: int
    epochs: float  # passes over the training rows that total_steps makes
    total_steps: int
    warmup_steps: int
    lr: Sequence[tuple[int, float]]  # (step, learning rate) at a few points of the schedule
    device: str
    device_reason: str
    dtype: str
    dtype_reason: str
    memory: Memory
    seconds: float | None  # estimated; None where nothing is known to estimate from
    loss: str = ""  # which loss, and why
    cleaning: Sequence[str] = ()  # the data report's lines
    speed: Sequence[str] = ()  # what keeps a fast path from running
    replaced: Sequence[tuple[str, str, str, str]] = ()  # fast paths: module, by, file, switch
    warnings: Sequence[str] = ()  # what a person would want to know before believing the result
    notes: Sequence[str] = ()  # whatever else must be said aloud before step 1
    details: Sequence[str] = ()  # of threads, kernels, caches: for who asks
    files: Sequence[str] = ()  # what the run writes into its folder

    @property
    def effective_batch_size(self) -> int:
        return self.micro_batch_size * self.accumulate


def _write_entry(title: str, lines: Sequence[str]) -> list[str]:
    """Lines behind a title in the left margin; a line that is too long goes on indented."""
    parts = []
    for line in lines:
        first, *rest = wrap(clean_line(line), COLUMNS - TITLE_COLUMNS - 2)
        parts += [first, *("  " + more for more in rest)]
    return _put_behind(title, parts)


def _write_table(title: str, rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    """An aligned table behind a title."""
    cells = [[shorten(clean_line(cell), CELL_COLUMNS) for cell in row] for row in rows]
    return _put_behind(title, align_table(cells, right))


def _put_behind(title: str, lines: Sequence[str]) -> list[str]:
    titles = [title] + [""] * (len(lines) - 1)
    return [
        (pad(head, TITLE_COLUMNS) + line).rstrip() for head, line in zip(titles, lines, strict=True)
    ]


def _describe_balance(counts: Mapping[str, int], rows: int) -> str:
    shares = [f"{label} {format_share(number, rows)}" for label, number in counts.items()]
    return join_names(shares, MOST_LABELS)


def _data_lines(plan: Plan) -> list[str]:
    lines = _write_entry("Data", [plan.data])
    table = [("split", "rows", "texts cut", "tokens cut")]
    for split, rows in plan.rows.items():
        cut = plan.truncation.get(split, Truncation(0, 0, 0, 0))
        row_share = format_share(cut.cut_rows, cut.rows)
        table.append(
            (split, format_count(rows), row_share, format_share(cut.cut_tokens, cut.tokens))
        )
    lines += _write_table("  rows", table, right=(1, 2, 3))
    lines += _write_entry("  length", plan.length)
    balances = [
        f"{split}: {_describe_balance(counts, plan.rows[split])}"
        for split, counts in plan.balance.items()
        if counts
    ]
    if balances:
        lines += _write_entry("  labels", balances)
    if plan.cleaning:
        lines += _write_entry("  cleaning", plan.cleaning)
    return lines


def _model_lines(plan: Plan) -> list[str]:
    share = format_share(plan.trainable, plan.parameters)
    lines = _write_entry("Model", [plan.model])
    trains = f"{format_count(plan.trainable)} of {format_count(plan.parameters)} parameters"
    lines += _write_entry("  trains", [f"{trains} ({share})"])
    table = [("group", "parameters", "tensors", "lr", "weight decay")]
    for group in plan.groups:
        counts = (format_count(group.parameters), format_count(group.tensors))
        rates = (format_number(group.lr), format_number(group.weight_decay))
        table.append((group.name, *counts, *rates))
    lines += _write_table("  groups", table, right=(1, 2, 3, 4))
    if plan.loss:
        lines += _write_entry("  loss", [plan.loss])
    return lines


def _step_lines(plan: Plan) -> list[str]:
    epochs = f"{format_number(plan.epochs)} {'epoch' if plan.epochs == 1 else 'epochs'}"
    warmup = f"the first {format_count(plan.warmup_steps)} of them warm-up"
    steps = f"{format_count(plan.total_steps)} in {epochs}, {warmup}"
    batch = f"{plan.effective_batch_size} rows a step"
    made_of = f"{plan.micro_batch_size} at a time"
    if plan.accumulate > 1:
        made_of += f", {plan.accumulate} times"
    rates = [f"{format_number(lr)} at step {format_count(step)}" for step, lr in plan.lr]
    return [
        *_write_entry("Steps", [steps]),
        *_write_entry("  batch", [f"{batch}: {made_of}"]),
        *_write_entry("  lr", [", ".join(rates)]),
    ]


def _machine_lines(plan: Plan, verbose: bool) -> list[str]:
    memory = plan.memory
    held = f"weights {format_bytes(memory.weights)}"
    if memory.process:
        held = f"before step 1 {format_bytes(memory.process)} ({held} of it)"
    parts = [
        held,
        f"gradients {format_bytes(memory.gradients)}",
        f"optimizer {format_bytes(memory.optimizer)}",
        f"activations {format_bytes(memory.activations)}",
    ]
    if memory.bag:
        parts[-1] += f" or, afterwards, the bag of n-grams {format_bytes(memory.bag)}"
    time = "not known before the first steps"
    if plan.seconds is not None:
        time = f"about {format_seconds(plan.seconds)} (estimated)"
    count = len(plan.replaced)
    paths = f"{count or 'no'} fast path{'s' if count > 1 else ''} on"
    if count and not verbose:
        paths += " (-v lists them)"
    return [
        *_write_entry("Machine", [f"{plan.device} ({plan.device_reason})"]),
        *_write_entry("  dtype", [f"{plan.dtype} ({plan.dtype_reason})"]),
        *_write_entry("  memory", [f"about {format_bytes(memory.total)}: {', '.join(parts)}"]),
        *_write_entry("  time", [time]),
        *_write_entry("  speed", [paths, *plan.speed]),
    ]


def replaced_lines(replaced: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """What runs instead of what, as a table; files stand below their common folder, and a module's
    name that is too long is cut. No lines where nothing is replaced."""
    if not replaced:
        return []
    folder = posixpath.commonpath([posixpath.dirname(file) for _, _, file, _ in replaced])
    rows = [("Instead of", "runs", f"in {folder}/", "switch")]
    rows += [(*row[:2], posixpath.relpath(row[2], folder), row[3]) for row in replaced]
    others = sum(max(len(row[column]) for row in rows) + 2 for column in (1, 2, 3))
    return align_table([(shorten(row[0], COLUMNS - others), *row[1:]) for row in rows])


def plan_lines(plan: Plan, verbose: bool = False) -> list[str]:
    """The plan as lines of plain text, none wider than 100 terminal columns; `verbose` adds the
    details and the table of fast paths."""
    lines = [line for warning in plan.warnings for line in _write_entry("WARNING", [warning])]
    lines += _write_entry("Run", [f"{plan.name}, in {plan.folder}"])
    lines += _data_lines(plan) + _model_lines(plan) + _step_lines(plan)
    lines += _machine_lines(plan, verbose)
    if plan.files:
        lines += _write_entry("Writes", [", ".join(plan.files)])
    if plan.notes:
        lines += _write_entry("Notes", plan.notes)
    if verbose and plan.details:
        lines += _write_entry("Details", plan.details)
    if verbose and plan.replaced:
        lines += ["", *replaced_lines(plan.replaced)]
    rule = "-" * COLUMNS
    return [rule, *lines, rule]


def difference_lines(plan: Plan, first: Plan, verbose: bool = False) -> list[str]:
    """The lines that a plan has and the first one has not; what is measured anew each time counts
    as equal."""
    alike = replace(
        plan, memory=first.memory, seconds=first.seconds, dtype_reason=first.dtype_reason
    )
    before = set(plan_lines(first, verbose))
    return [line for line in plan_lines(alike, verbose) if line not in before]
