"""The plan: everything a newcomer must know before step 1, within 100 columns."""

from dataclasses import replace

import pytest

from report.format import COLUMNS, measure_width
from report.plan import Group, Memory, Plan, Truncation, difference_lines, plan_lines

PLAN = Plan(
    name="imdb_lora",
    folder="runs/imdb_lora",
    model="package:some_encoder/model",
    data="package:some_reviews/reviews.csv",
    rows={"train": 6000, "test": 2000},
    balance={"train": {"negative": 3000, "positive": 3000}},
    truncation={"train": Truncation(6000, 2400, 1_000_000, 250_000)},
    length=["at most 256 tokens a text; longer ones lose their end"],
    trainable=222_338,
    parameters=22_935_938,
    groups=[Group("decayed", 26, 221_952, 3e-4, 0.01)],
    micro_batch_size=16,
    accumulate=2,
    epochs=3,
    total_steps=564,
    warmup_steps=34,
    lr=[(1, 8.8e-6), (34, 3e-4), (282, 1.6e-4), (423, 8e-5), (564, 0.0)],
    device="cpu",
    device_reason="no CUDA device was found",
    dtype="fp32",
    dtype_reason="this CPU has no bf16 units",
    memory=Memory(weights=2 * 1024**2, gradients=1024**2, optimizer=1024**2, activations=1024**2),
    seconds=290.0,
    loss="cross-entropy: each row has one of 2 labels",
    cleaning=["96 exact duplicates dropped"],
    speed=["attention: stock, since this is a test"],
    replaced=[("Linear x4", "product_forward", "models/fast/linear.py", "speed.linear")],
    warnings=["test has only 40 rows", "two labels look alike"],
    notes=["classifier.weight starts from random values"],
    details=["threads: 2"],
    files=["config.toml", "metrics.jsonl"],
)


def entry(lines: list[str], title: str) -> str:
    """What stands behind `title`, its further lines included."""
    start = next(i for i, line in enumerate(lines) if line.strip().startswith(title))
    end = start + 1
    while end < len(lines) and lines[end].startswith(" " * 14):
        end += 1
    return " ".join(" ".join(lines[start:end]).split()).removeprefix(title).strip()


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Run", "imdb_lora, in runs/imdb_lora"),
        ("rows", "train 6,000 40.0 % 25.0 %"),
        ("rows", "test 2,000 - -"),
        ("length", "at most 256 tokens a text; longer ones lose their end"),
        ("labels", "train: negative 50.0 %, positive 50.0 %"),
        ("cleaning", "96 exact duplicates dropped"),
        ("trains", "222,338 of 22,935,938 parameters (1.0 %)"),
        ("groups", "decayed 221,952 26 0.0003 0.01"),
        ("loss", "cross-entropy: each row has one of 2 labels"),
        ("Steps", "564 in 3 epochs, the first 34 of them warm-up"),
        ("batch", "32 rows a step: 16 at a time, 2 times"),
        ("lr", "8.8e-06 at step 1, 0.0003 at step 34"),
        ("Machine", "cpu (no CUDA device was found)"),
        ("dtype", "fp32 (this CPU has no bf16 units)"),
        ("memory", "about 5.0 MiB: weights 2.0 MiB, gradients 1.0 MiB"),
        ("time", "about 4 min 50 s (estimated)"),
        ("speed", "1 fast path on (-v lists them) attention: stock, since this is a test"),
        ("Writes", "config.toml, metrics.jsonl"),
        ("Notes", "classifier.weight starts from random values"),
    ],
)
def test_plan_states(title, shown):
    assert shown in entry(plan_lines(PLAN), title)


def test_time_without_an_estimate_is_said_to_be_unknown():
    assert "not known" in entry(plan_lines(replace(PLAN, seconds=None)), "time")


def test_what_the_process_already_holds_counts_the_weights_once():
    memory = replace(PLAN.memory, process=5 * 1024**2)
    shown = entry(plan_lines(replace(PLAN, memory=memory)), "memory")
    assert shown.startswith("about 8.0 MiB: before step 1 5.0 MiB (weights 2.0 MiB of it), grad")


def test_regression_has_no_label_balance():
    lines = plan_lines(replace(PLAN, balance={"train": {}}))
    assert not any(line.strip().startswith("labels") for line in lines)


def test_no_line_exceeds_100_columns_whatever_is_put_in():
    plan = replace(
        PLAN,
        name="n" * 150,
        data="映画" * 80,
        rows={"a split with a very long name": 10**12},
        balance={"a split with a very long name": {f"ラベル{i}": 7 for i in range(40)}},
        groups=[Group("解" * 40, 10**9, 10**13, 1.23456789e-5, 0.123456789)],
        notes=["a\x1b[31m note\nof two lines " * 20],
        details=["a detail " * 20],
        replaced=[("XLMRobertaSelfAttention x24, Linear x24", "f" * 20, "m" * 28, "s" * 25)],
    )
    lines = plan_lines(plan, verbose=True)
    assert max(map(measure_width, lines)) <= COLUMNS
    assert "\x1b" not in "".join(lines)
    assert "and 28 more" in " ".join(lines)


def test_warnings_come_first():
    lines = plan_lines(PLAN)
    assert [line.split()[:2] for line in lines[1:3]] == [["WARNING", "test"], ["WARNING", "two"]]
    assert lines[3].startswith("Run")


def test_details_and_the_table_of_fast_paths_are_for_who_asks():
    short, long = ("\n".join(plan_lines(PLAN, verbose)) for verbose in (False, True))
    for word in ("threads: 2", "product_forward  linear.py", "in models/fast/"):
        assert word not in short
        assert word in long
    assert "-v" not in long


def test_a_plan_without_fast_paths_says_so():
    plan = replace(PLAN, replaced=[], speed=[])
    assert entry(plan_lines(plan), "speed") == "no fast path on"


def test_a_later_plan_differs_by_its_own_lines_not_by_what_is_measured_anew():
    later = replace(PLAN, seconds=300.0, memory=Memory(1, 2, 3, 4), dtype_reason="measured again")
    assert difference_lines(later, PLAN) == []
    assert difference_lines(replace(later, name="other"), PLAN) == [
        "Run           other, in runs/imdb_lora"
    ]
