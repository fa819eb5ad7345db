"""predict.py, --eval-only and the test of a run answer alike: whatever a run was trained with, each
of the three has to bring again. One run a case, then both against what its own test wrote down."""

import json

import pytest
import torch

import engine.precision
import predict
import train
from openloop import load_run, open_job
from configs.read import read_config
from job.testing.score import score_finished

EXACT, BF16 = 2e-5, 2e-2  # the batches hold other rows, so sums round otherwise
TEXT = "it went through the town and the film and the story of people and music"


def word(i):
    return ("bad awful", "good great")[i % 2]


def marked_up(i):
    """What cleaning takes out stands in it, and the words that tell at the end, where a cut from
    the right would lose them."""
    tags = "".join(f"<b>{part}</b><br />" for part in f"{TEXT} {word(i)}".split())
    return {"text": f"\u00a0 {tags} cafe\u0301  \x07 {i}", "label": ("neg", "pos")[i % 2]}


def several(i):
    labels = [["a"], ["b"], ["a", "b"]][i % 3]
    return {"text": f"good story {i}" + " of music" * (i % 3), "label": labels}


def number(i):
    return {"text": f"{word(i)} film {i}" + " story" * (i % 5), "label": 1900.0 + 40 * (i % 2)}


def pair(i):
    return {"text": f"good film {i}", "other": f"<b>{word(i)}</b><br />film", "label": i % 2}


def skewed(i):
    """HTML that this run was told to leave in, and few rows of one class."""
    return {"text": f"<i>{word(i % 5)}</i> film {i}", "label": ("rare", "usual")[i % 5 > 0]}


# name -> (rows, changes to the recipe); a section of None is left out
CASES = {
    "one class: cleaned, cut on the left, labels in an order, weights, smoothing": (marked_up, {
        "data": {"max_length": 12, "truncation": "left", "labels": ["pos", "neg"]},
        "train": {"class_weights": [0.2, 3.0], "label_smoothing": 0.1},
    }),
    "several labels: weights, the first token, the last layer": (several, {
        "train": {"class_weights": [9.0, 0.1]},
        "head": {"pool": "cls"}, "lora": None, "model": {"train": "last:1"},
    }),
    "a number: the last token": (number, {
        "data": {"kind": "regression"}, "head": {"pool": "last"},
    }),
    "pairs in what was found to be bf16": (pair, {
        "data": {"text": ["text", "other"]}, "precision": {"dtype": "auto"},
        "head": {"kind": "mlp"},
    }),
    "all weights, BERT's own head, plain, few rows at once": (pair, {
        "lora": None, "head": {"kind": "native"}, "speed": {"plain": True},
        "eval": {"micro_batch_size": 2},
    }),
    "balanced weights, without cleaning": (skewed, {
        "train": {"class_weights": "balanced"},
        "data": {"clean": {"html": False, "unicode": "none"}},
    }),
}  # fmt: skip
BF16_CASE = next(case for case in CASES if "bf16" in case)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_folder):
    """`finished(case)`: config and folder of a run; each is trained once."""
    import tomli_w

    folder, done = tmp_path_factory.mktemp("wiring"), {}

    def run(case):
        if case in done:
            return done[case]
        make_row, changes = CASES[case]
        place = folder / str(list(CASES).index(case))
        place.mkdir()
        rows = [json.dumps(make_row(i), ensure_ascii=False) for i in range(72)]
        (place / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
        tables = {
            "run": {"name": "run", "dir": str(place)},
            "model": {"source": str(tiny_folder)},
            "head": {"kind": "linear", "pool": "mean"},
            "lora": {"rank": 2, "alpha": 4.0, "targets": ["query", "value"]},
            "data": {"source": str(place / "rows.jsonl"), "max_length": 32, "test": 24},
            "train": {"epochs": 2, "micro_batch_size": 6, "lr": 1e-2},
            "eval": {"baseline": False},
            "precision": {"dtype": "fp32", "device": "cpu"},
            "speed": {"native": "off"},
        }
        for name, values in changes.items():
            tables[name] = None if values is None else {**tables[name], **values}
        if tables["head"]["kind"] == "native":
            del tables["head"]["pool"]
        tables = {name: values for name, values in tables.items() if values is not None}
        (place / "recipe.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine.precision, "probe_dtype", lambda device: ("bf16", "measured"))
            assert train.main(["--config", str(place / "recipe.toml")]) == 0
        done[case] = read_config(place / "recipe.toml"), place / "run"
        return done[case]

    return run


@pytest.fixture(autouse=True)
def another_machine(monkeypatch):
    """What "auto" meant when a run began is recorded; to ask the machine again would say fp32."""
    monkeypatch.setattr(engine.precision, "probe_dtype", lambda device: ("fp32", "measured"))


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_predict_answers_as_the_test_did(case, finished, tmp_path):
    config, run = finished(case)
    tested = read_lines(run / "test_predictions.jsonl")
    words = ["--run", str(run), "--file", str(config.data.source)]
    assert predict.main([*words, "--output", str(tmp_path / "out.jsonl")]) == 0
    answers = {row["address"]: row for row in read_lines(tmp_path / "out.jsonl")}
    near = BF16 if config.precision.dtype == "auto" else EXACT
    assert len(tested) == 24
    for row in tested:
        answer = answers[row["row"]]
        assert answer["probabilities"] == pytest.approx(row["probabilities"], rel=near, abs=near)
        if near is EXACT and "value" not in row["probabilities"]:
            assert answer["label"] == row["predicted"]
    told = [next(iter(row["probabilities"].values())) for row in tested]
    assert max(told) - min(told) > 3 * near, "all rows look alike: nothing would show"


@pytest.mark.parametrize("case", CASES)
def test_eval_only_finds_what_the_test_found(case, finished):
    config, run = finished(case)
    before = json.loads((run / "result.json").read_text(encoding="utf-8"))["test"]
    again = json.loads(json.dumps(score_finished(config)["test"]))
    assert again.keys() == before.keys()
    for name, value in before.items():
        if isinstance(value, int | float):
            assert again[name] == pytest.approx(value, rel=1e-6), name
        else:
            assert again[name] == value, name


def test_the_dtype_that_was_found_is_asked_of_the_record(finished):
    config, run = finished(BF16_CASE)
    assert load_run(run).precision.dtype == "bf16"
    assert open_job(config, resume=True).precision.dtype == "bf16"
    assert open_job(config).precision.dtype == "fp32"


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_an_answer_by_name_is_the_one_that_is_counted(kind):
    """Metrics count from logits, answers are named: one threshold for both."""
    from engine.decision import Decision
    from job.predicting.naming import name_predictions

    near = torch.tensor([[-0.02, 0.02, 1.0], [0.02, -0.02, -1.0], [0.3, -0.3, 0.29]])  # (B, C)
    decision = Decision(kind, temperature=7.0)
    named = name_predictions(["text"] * 3, decision, near, ["0", "1", "2"])
    for prediction, number in zip(named, decision.answers(near).tolist(), strict=True):
        chosen = [number] if kind == "single" else [i for i in range(3) if number[i]]
        assert prediction.label == ", ".join(map(str, chosen))


@pytest.mark.parametrize("how", ["cls", "mean", "last"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pooling_a_row_without_tokens_is_a_number_and_leaves_the_others(how, side):
    from models.heads import pool

    hidden = torch.arange(24.0).reshape(2, 4, 3) + 1  # (B, T, D)
    real = torch.tensor([1, 1, 0, 0] if side == "right" else [0, 0, 1, 1])
    mask = torch.stack([real, torch.zeros(4, dtype=torch.long)])  # the second row holds nothing
    pooled = pool(hidden, mask, how)
    assert pooled.shape == (2, 3)
    assert torch.isfinite(pooled).all()
    assert torch.equal(pooled[:1], pool(hidden[:1], mask[:1], how))
    if how == "mean":
        assert torch.equal(pooled[1], torch.zeros(3))


def test_the_samples_are_asked_without_dropout_and_the_model_trains_on(finished):
    from job.predicting.samples import predict_samples, predictor_of
    from job.testing.scorer import plain_decision

    config, _ = finished(next(iter(CASES)))
    changes = {"model": config.model.model_copy(update={"dropout": 0.5}),
               "samples": config.samples.model_copy(update={"texts": ["a good film"]})}  # fmt: skip
    job = open_job(config.model_copy(update=changes))
    job.built.model.train()
    predictor = predictor_of(job, plain_decision(job))
    first = predict_samples(job, predictor)
    assert [predict_samples(job, predictor) for _ in range(3)] == [first] * 3
    assert job.built.model.training


def test_seed_and_sizes_reach_every_place(finished, monkeypatch):
    from data.loaders import epoch_order
    from job.fit import epoch_batches
    from job.testing import score

    config, _ = finished(next(case for case in CASES if "few rows" in case))
    changes = {"run": config.run.model_copy(update={"seed": 5}),
               "train": config.train.model_copy(update={"micro_batch_size": 7}),
               "head": config.head.model_copy(update={"kind": "linear"})}  # fmt: skip
    job = open_job(config.model_copy(update=changes))
    rows = job.encoded["train"].dataset["row"]
    order = [rows[place] for place in epoch_order(len(rows), 5, 2)]
    taken = [batch["rows"].tolist() for batch in epoch_batches(job, 2, 1)]
    assert taken == [order[first : first + 7] for first in range(7, len(rows), 7)]
    assert job.plan.seed == 5
    other = open_job(config.model_copy(update={"head": changes["head"]}))
    assert not torch.equal(job.built.model.head.out.weight, other.built.model.head.out.weight)

    sizes = []

    def note(dataset, size, padding):
        sizes.append(size)
        return eval_batches(dataset, size, padding)

    eval_batches = score.eval_batches
    monkeypatch.setattr(score, "eval_batches", note)
    score_finished(config)
    assert sizes == [job.evaluation_rows] == [2]
