"""A search decides by what its record holds: killed anywhere and resumed, it comes to the same."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import tune
from configs.read import parse_config, read_config
from engine.stop import Stopped, StopRequest
from job.tuning import beside as besides
from job.tuning import planned as planning
from job.tuning import search as searching
from job.tuning.beside import SHARE, Beside, put_beside
from job.tuning.best import behind, choose, finalists, last_rung, ranked
from job.tuning.final import final_config, fitting_steps, ratio
from job.tuning.measure import Measured
from job.tuning.plan import Shape, Speeds
from job.tuning.planned import Clock, Wanted
from job.tuning.record import Record, read_record
from job.tuning.search import search
from job.tuning.show import conclusion
from job.tuning.trial import Trained, open_pool, run_trial
from report.tune import noise_line, recipe_line, within_noise

ROWS = 40
SHAPE = Shape(900, 1, 4, ROWS, 60, {32: 20.0})
SPEEDS = Speeds(1.0, 1e-3, 1e-4, 5.0)


class FakeTime:
    """time.monotonic() of the search: it moves when a trial says so."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def world(monkeypatch, recipe, tmp_path):
    """run(record path, …) -> a search in which trials take `slow` times the planned seconds and are
    the better the nearer their rate lies to 3e-3; `stop_after` trials it is asked to stop."""
    config = read_config(recipe())
    splits = {"train": range(900), "validation": range(ROWS)}
    pool = SimpleNamespace(
        kind="single",
        splits=splits,
        report=SimpleNamespace(read={"train": 1000}, splits={"test": 60}),
    )
    measured = Measured(SHAPE, SPEEDS, None, 0.0, ("query", "value"), 64)
    monkeypatch.setattr(planning, "open_pool", lambda config: pool)
    monkeypatch.setattr(searching, "open_pool", lambda config: pool)
    monkeypatch.setattr(planning, "measure", lambda *rest: measured)
    monkeypatch.setattr(planning, "put_beside", lambda config, pool, seconds: None)
    monkeypatch.setattr(searching, "release_memory", lambda: None)  # of models: there are none
    monkeypatch.setattr(searching, "first_rows", lambda pool, rows, validation: (rows, validation))

    def run(
        path, seconds=80.0, slow=1.0, stop_after=math.inf, sampler="random", fails=(), words=(),
        slow_others=1.0,
    ):  # fmt: skip
        time, count, sizes = FakeTime(), 0, set()
        monkeypatch.setattr(planning, "time", time)
        monkeypatch.setattr(searching, "time", time)

        def trial(config, data, allow_code, stop, needs, until, on_step):
            return train(config, *data, until(None))

        def kept(config, trainer, stop, until):
            (tmp_path / Path(config.run.dir).name).mkdir(exist_ok=True)
            part = config.data.subset
            return train(config, part.get("train", 900), part.get("validation", ROWS), until)

        def train(config, rows, validation, until):
            nonlocal count
            count += 1
            if count > stop_after:
                raise Stopped
            sizes.add(rows)
            off = abs(math.log(config.train.lr / 3e-3))
            own = config.train.lr == 1e-2
            needed = slow * (SPEEDS.opening + 20 * (rows * 1e-3 + validation * 1e-4))
            ends = time.now + needed * (1 if own else slow_others)
            late, time.now = ends > until, min(ends, max(time.now, until))
            if config.train.lr in fails or (fails == ("others",) and not own):
                raise ValueError("the loss is no number")
            if fails == ("large",) and rows > min(sizes) and not own:
                raise ValueError("the loss is no number")
            right = round(validation * max(0.0, 0.9 - 0.1 * off))
            rows_right = [1.0] * right + [0.0] * (validation - right)
            return Trained(
                "accuracy", right / validation, off, rows_right, 3, 1.0, 1.0, 1.0, 1, None, late
            )

        monkeypatch.setattr(searching, "run_trial", trial)
        monkeypatch.setattr(searching, "train_kept", kept)
        wanted = Wanted(config, sampler, 0, words, False, None)
        if path.exists():
            record = read_record(path)
        else:
            record = Record(path)
            record.add("search")
        clock = Clock(seconds, 0.0, record.spent)
        shown = []
        planned, winner = search(
            wanted, record, clock, StopRequest(), lambda line, planned: shown.append(line),
            lambda planned: None,
        )  # fmt: skip
        return SimpleNamespace(
            planned=planned, winner=winner, record=record, shown=shown, time=time
        )

    return run


def trials(record):
    return [
        (one["rung"], one["trial"], one["settings"], one.get("value")) for one in record.of("trial")
    ]


def test_the_recipe_is_trial_0_of_every_rung_and_all_are_judged_on_the_same_rows(world, tmp_path):
    done = world(tmp_path / "a.jsonl")
    assert len(done.planned.rungs) >= 2
    for rung in range(len(done.planned.rungs)):
        lines = [one for one in done.record.of("trial") if one["rung"] == rung]
        assert lines[0]["trial"] == 0
        assert lines[0]["settings"] == {}
        assert len({(one["rows"], one["validation"]) for one in lines}) == 1
    assert len(done.shown) == len(list(done.record.of("trial")))


def test_the_winner_is_never_worse_than_the_recipe(world, tmp_path):
    done = world(tmp_path / "a.jsonl", seconds=300.0)
    best = ranked(done.record, last_rung(done.record))
    assert {one["rows"] for one in best} == {done.planned.rows}
    own = next(one for one in best if one["trial"] == 0)
    assert best[0]["value"] >= own["value"]
    assert done.winner["trial"] == best[0]["trial"] != 0
    lines = conclusion(done.record, done.winner)
    better = "the winner is better than the recipe itself beyond noise"
    assert any(line.startswith(better) for line in lines)
    assert lines[-1].startswith(f"winner: trial {best[0]['trial']}: ")


def test_time_that_is_left_goes_to_further_runs_on_all_rows(world, tmp_path):
    planned = world(tmp_path / "a.jsonl", seconds=200.0)
    quick = world(tmp_path / "b.jsonl", seconds=200.0, slow=0.5)
    last = len(planned.planned.rungs) - 1
    runs = [[one for one in done.record.of("trial") if one["rung"] == last]
            for done in (planned, quick)]  # fmt: skip
    assert len(runs[1]) > len(runs[0])
    assert quick.time.now <= quick.planned.until


def test_where_two_runs_no_longer_fit_nothing_more_is_tried(world, tmp_path):
    done = world(tmp_path / "a.jsonl", slow=5)
    assert all(one["rows"] < done.planned.rows for one in done.record.of("trial"))
    assert len(done.planned.rungs) == 1
    assert done.time.now < done.planned.until
    assert done.winner["trial"] == 0
    whole = trials(world(tmp_path / "b.jsonl").record)
    assert len(trials(done.record)) < len([one for one in whole if one[0] == 0])


def test_each_rung_takes_the_best_of_the_one_before(world, tmp_path):
    done = world(tmp_path / "a.jsonl")
    first = [one["trial"] for one in ranked(done.record, 0)]
    second = {one["trial"] for one in done.record.of("trial") if one["rung"] == 1}
    others = [number for number in first if number][: len(second) - 1]
    assert second == {0, *others}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_killed_after_any_trial_and_resumed_it_is_the_same_search(world, tmp_path, sampler):
    whole = world(tmp_path / "whole.jsonl", sampler=sampler)
    count = len(trials(whole.record))
    for after in {0, 1, count // 2, count - 1}:
        path = tmp_path / f"cut{after}.jsonl"
        with pytest.raises(Stopped):
            world(path, stop_after=after, sampler=sampler)
        with path.open("ab") as file:
            file.write(b'{"kind": "trial", "tri')  # what a power cut leaves
        done = world(path, sampler=sampler)
        assert trials(done.record) == trials(whole.record)
        assert done.winner["settings"] == whole.winner["settings"]
        assert done.planned == whole.planned


def test_a_finished_search_trains_no_trial_again(world, tmp_path):
    first = world(tmp_path / "a.jsonl")
    again = world(tmp_path / "a.jsonl", stop_after=0)
    assert again.winner == first.winner


@pytest.mark.parametrize("slow", [2, 5, 20])
def test_a_search_that_falls_behind_tries_less_and_ends_in_time(world, tmp_path, slow):
    quick, late = world(tmp_path / "a.jsonl"), world(tmp_path / "b.jsonl", slow=slow)
    assert len(trials(late.record)) < len(trials(quick.record))
    longest = max(one["seconds"] for one in late.record.of("trial"))
    assert late.time.now <= late.planned.until * searching.AHEAD + longest
    assert late.winner["settings"] == {} or late.winner["trial"] > 0


def test_where_no_two_trials_fit_the_recipe_wins(world, tmp_path):
    done = world(tmp_path / "a.jsonl", seconds=8.0)
    assert done.planned.rungs == []
    assert (done.winner["trial"], done.winner["rung"]) == (0, None)
    assert done.planned.base.data.subset["train"] < 900


def test_a_trial_that_fails_is_noted_and_is_out(world, tmp_path):
    done = world(tmp_path / "a.jsonl", fails=("others",))
    failed = [one for one in done.record.of("trial") if "failed" in one]
    assert failed
    assert "no number" in failed[0]["failed"]
    assert done.winner["trial"] == 0


def test_what_fails_on_more_rows_does_not_win_by_how_it_was_on_fewer(world, tmp_path):
    done = world(tmp_path / "a.jsonl", fails=("large",))
    failed = {one["trial"] for one in done.record.of("trial") if "failed" in one}
    assert failed == {one["trial"] for one in done.record.of("trial") if one["rung"] == 1} - {0}
    assert ranked(done.record, 0)[0]["trial"] in failed
    assert done.winner["trial"] not in failed
    assert done.winner["rung"] == 0
    own = next(one for one in ranked(done.record, 0) if one["trial"] == 0)
    assert finalists(done.record)[0]["value"] >= own["value"]


def test_a_trial_that_takes_far_longer_than_planned_leaves_the_winner_its_time(world, tmp_path):
    done = world(tmp_path / "a.jsonl", slow_others=1000.0)
    (cut,) = (one for one in done.record.of("trial") if "failed" in one)
    assert cut["failed"].startswith("its time was over after 3 steps")
    assert "value" not in cut
    assert done.time.now <= done.planned.until + 2 * max(done.planned.costs)
    assert done.winner["trial"] == 0
    assert world(tmp_path / "a.jsonl", stop_after=0).winner == done.winner


def test_a_space_of_no_recipe_says_why_before_any_trial(world, tmp_path):
    with pytest.raises(ValueError, match=r"the last one is train\.lr=-1.*\n.*\n.*lr: got -1"):
        world(tmp_path / "a.jsonl", words=("train.lr=-2..-1",), stop_after=0)


def test_a_small_space_is_tried_whole_and_then_left(world, tmp_path):
    done = world(tmp_path / "a.jsonl", words=("lora.rank=4|8,train.weight_decay=0.1",), seconds=600)
    first = [one["settings"] for one in done.record.of("trial") if one["rung"] == 0]
    assert len(first) == 6  # of (own, 4, 8) with (own, 0.1)
    assert done.planned.rungs[0].trials == 6


def test_a_recipe_that_fails_ends_the_search(world, tmp_path):
    with pytest.raises(ValueError, match="no number"):
        world(tmp_path / "a.jsonl", fails=(1e-2,))


def test_a_record_that_is_damaged_is_refused(tmp_path):
    path = tmp_path / "tune.jsonl"
    path.write_text('{"kind": "search"}\n[]\n{"kind": "plan"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        read_record(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no search"):
        read_record(path)


def test_noise_is_told_from_differences_on_the_same_rows():
    def line(right, of=400):
        return {"right": [1.0] * right + [0.0] * (of - right), "numbers": False}

    apart = behind([line(360), line(358), line(300)])
    assert apart[0] == (0.0, 0.0, 0.0)
    assert apart[1][0] == pytest.approx(-2 / 400)
    assert within_noise(apart, "accuracy") == 2
    assert noise_line(apart, "accuracy").startswith("the first 2 are within noise")
    assert "beyond noise" in noise_line(behind([line(360), line(300)]), "accuracy")
    assert noise_line(behind([line(360), line(360)]), "accuracy").startswith(
        "both are within noise"
    )
    # macro F1 may put first what is right less often: that is not better beyond noise
    assert noise_line(behind([line(300), line(360)]), "accuracy").startswith(
        "both are within noise"
    )
    assert noise_line(behind([line(360)]), "accuracy").startswith("no other trial")
    assert "beyond noise" in recipe_line(apart[2], "accuracy")
    assert "within noise" in recipe_line(apart[1], "accuracy")
    nan = (math.nan, math.nan, math.nan)  # of a figure that is none: it says nothing
    assert noise_line([(0.0, 0.0, 0.0), nan], "rmse").startswith("both are")


@pytest.mark.parametrize(
    ("rows", "right", "wins"),
    [(300, 180, 0), (900, 180, 1), (900, 145, 1), (900, 140, 0), (900, 130, 0)],
    ids=["on fewer rows", "on all rows", "within noise", "equal", "worse"],
)
def test_a_setting_wins_by_what_it_is_on_all_rows_alone(tmp_path, rows, right, wins):
    def add(number, right):
        record.add(
            "trial", trial=number, rung=0, rows=rows, metric="accuracy", value=right / 200,
            loss=1.0, right=[1.0] * right + [0.0] * (200 - right), numbers=False,
            settings={"train.lr": "0.01"} if number else {}, seconds=1.0, validation=200,
        )  # fmt: skip

    record = Record(tmp_path / "tune.jsonl")
    add(0, 140)
    add(1, right)
    add(2, 120)
    winner = choose(record, 900, 0.0)
    assert winner["trial"] == wins
    lines = conclusion(record, winner)
    stays = "trial 1 is ahead of the recipe itself on 300 rows"
    assert any(stays in line for line in lines) is (rows == 300)
    assert any("of the winner" in line or "the winner is" in line for line in lines) is bool(wins)


def test_a_regression_is_behind_by_its_rmse():
    first, other = ({"right": squares, "numbers": True} for squares in ([1.0] * 50, [4.0] * 50))
    apart = behind([first, other])
    assert apart[1][0] == pytest.approx(1.0)
    assert "beyond noise" in noise_line(apart, "rmse")


def test_the_winner_trains_a_whole_schedule_over_the_steps_that_fit(world, tmp_path):
    done = world(tmp_path / "a.jsonl")
    planned = replace(done.planned, final=60.0, closing=10.0)
    scale = ratio(done.record, done.winner)
    assert scale == 1.0
    assert fitting_steps(planned, done.record, done.winner, 100.0, 225, 1.0) is None
    steps = fitting_steps(planned, done.record, done.winner, 40.0, 225, 1.0)
    assert 225 * 0.5 < steps < 225 * 30 / 50
    assert fitting_steps(planned, done.record, done.winner, 5.0, 225, 1.0) == 4
    config = final_config(planned, done.winner, steps)
    assert config.train.max_steps == steps
    assert config.run.name == "tiny-tuned"
    assert parse_config(config.model_dump(exclude_none=True)) == config


def test_test_rows_change_no_trial(recipe, reviews_csv, tmp_path):
    """Those of the second source are labelled the other way round."""
    lines = reviews_csv.read_text(encoding="utf-8").splitlines()
    train, test = [lines[0], *lines[1:45]], lines[45:]
    turned = [line[:-3] + {"pos": "neg", "neg": "pos"}[line[-3:]] for line in test]
    (tmp_path / "train.csv").write_text("\n".join(train), encoding="utf-8")
    seen = []
    for name, rows in (("honest", test), ("poisoned", turned)):
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join([lines[0], *rows]), encoding="utf-8")
        source = {"train": str(tmp_path / "train.csv"), "test": str(path)}
        config = read_config(recipe(data={"source": source, "validation": 12}))
        pool = open_pool(config)
        assert set(pool.splits) == {"train", "validation"}
        trained = run_trial(config, pool, False, StopRequest())
        seen.append((trained.value, trained.loss, trained.rows))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--minutes", "1", "--grid", "train.lr=1,2"], "one of them"),
        (["--minutes", "0"], "more than 0"),
        (["--grid", "train.lr=1,2", "--seed", "0"], "goes with --minutes"),
        (["--lr-range", "--sampler", "tpe"], "goes with --minutes"),
        (["--lr-range", "--resume"], "leave --resume"),
        (["--minutes", "-1"], "more than 0"),
        (["--lr-range", "--space", "train.lr=1..2"], "goes with --minutes"),
        (["--minutes", "1", "--resume", "--fresh"], "one of them"),
        (["--minutes", "1", "--seed", "-3"], "expected 0"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words, part, capsys):
    with pytest.raises(SystemExit) as ended:
        tune.parse_arguments(["--config", "a.toml", *words])
    assert ended.value.code == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sections", "part"),
    [
        ({"contrast": {"pairs": 8}}, "[contrast]"),
        ({"data": {"stream": True}}, "data.stream"),
        ({"data": {"validation": 0}}, "no validation rows"),
    ],
)
def test_what_cannot_be_searched_says_why(recipe, capsys, sections, part):
    assert tune.main(["--config", str(recipe(**sections)), "--minutes", "1"]) == 2
    assert part in capsys.readouterr().err


def test_a_chat_is_refused_with_the_way_that_works(tmp_path, chat_place, capsys):
    path = chat_place(tmp_path) / "chat.toml"
    assert tune.main(["--config", str(path), "--minutes", "1"]) == 2
    assert "--grid" in capsys.readouterr().err


def test_an_earlier_search_is_never_overwritten(recipe, tmp_path, capsys):
    folder = tmp_path / "runs/tiny-tune"
    folder.mkdir(parents=True)
    line = {"kind": "search", "recipe": {}, "seconds": 60.0, "seed": 0, "sampler": "random"}
    (folder / "tune.jsonl").write_text(json.dumps({**line, "space": []}) + "\n", encoding="utf-8")
    words = ["--config", str(recipe()), "--minutes", "1"]
    assert tune.main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert tune.main([*words, "--resume", "--seed", "4"]) == 2
    output = capsys.readouterr().err
    assert "seed: 0 -> 4" in output
    assert "train.lr" in output


def test_rows_that_there_is_no_time_for_are_read_by_a_bag(recipe, monkeypatch):
    config = read_config(recipe())
    pool = open_pool(config)
    beside = put_beside(config, pool, 100.0)
    assert beside.config.bag.rows == "all"
    assert beside.config.model_copy(update={"bag": None}) == config
    assert 0 < beside.seconds <= SHARE * 100
    assert put_beside(beside.config, pool, 100.0) is None  # it has one
    assert put_beside(config, pool, beside.seconds / SHARE / 100) is None  # no time
    ngrams = read_config(recipe(model={"source": "ngrams"}, head=None, lora=None))
    assert put_beside(ngrams, pool, 100.0) is None
    monkeypatch.setattr(besides, "room_of", lambda device, processes: 1)
    assert put_beside(config, pool, 100.0) is None


@pytest.mark.parametrize("seconds", [14.0, 1e5])
def test_a_bag_is_put_beside_only_where_rows_are_left_out(world, tmp_path, monkeypatch, seconds):
    def put(config, pool, seconds):
        return Beside(parse_config(config.model_dump(exclude_none=True) | {"bag": {}}), 1.0)

    monkeypatch.setattr(planning, "put_beside", put)
    done = world(tmp_path / "a.jsonl", seconds=seconds)
    assert (done.planned.base.bag is not None) is (seconds == 14.0)
    assert (done.planned.base.data.subset != {}) is (seconds == 14.0)
    if done.planned.base.bag is not None:  # its time is no other's
        assert done.planned.closing >= SPEEDS.closing + 1.0
