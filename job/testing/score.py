"""Scoring a finished run again: the exported model on its own test rows. Nothing is written."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from configs.schema import Config
from data.loaders import eval_batches
from data.prepare import Data
from engine.losses import Batch
from job.ending import reading
from job.folder import Folder, refuse_other_trajectory, run_folder
from job.own_code import changed_since
from job.predicting.predictor import made_with, make_padding
from job.rows import load_rows
from job.speed import evaluation_rows, feed_batches, set_up_torch, speed_up_model
from job.testing.decided import read_decision
from job.testing.fusion import BOTH, fused_logits
from job.testing.scorer import Scorer
from job.training.bag import settle_precision
from job.training.labelled import encode_split
from job.training.loss import choose_loss
from job.verify import check_run, read_result
from models.export import load_exported
from models.ngrams.fusion import load_fusion


def score_finished(
    config: Config,
    base: Path | None = None,
    *,
    allow_code: bool = False,
    allow_drift: bool = False,
    allow_network: bool = False,
) -> dict[str, Any]:
    """Metrics of a finished run's exported model on its test rows, under "test", and what the run
    found beside them on the same rows, under "compared". `base` is where the base of its adapter is
    now, if it has moved.

    Raises ValueError where the run is not finished, was another recipe, has no test rows, or where
    its rows have changed since; unless `allow_drift`, also where its files have. `allow_network`
    lets the base be fetched from its hub.
    """
    folder = open_scored(config, allow_drift)
    data = load_same_rows(config, folder)
    with reading(f"the model in {folder.path}"):
        model, tokenizer, args = load_exported(
            folder.model, allow_code, base, allow_network, verified=True
        )
        decision = read_decision(folder.model, args)
    recorded = made_with(folder).get("dtype")
    precision = settle_precision(
        config.precision.device, config.precision.dtype, tokenizer, recorded
    )
    model.to(precision.device)
    speed = speed_up_model(model, config, precision)
    loss_fn, sentence = choose_loss(
        config=config, data=data, target=decision.target, device=precision.device,
        allow_code=allow_code,
    )  # fmt: skip
    rows = encode_split(config, tokenizer, data, "test").dataset
    rows_at_once = evaluation_rows(config, model, precision.device)
    batches = eval_batches(rows, rows_at_once, make_padding(tokenizer))
    batches = feed_batches(batches, speed, precision.device)
    scorer = Scorer(decision, args.num_labels, loss_fn, precision)
    metrics = score_rows(config, data, model, batches, scorer)
    if config.train.loss is not None:
        changed = changed_since(config, folder.recorded(), "train.loss")
        print(f"loss {metrics['loss']:.4f}, by {sentence}{changed}")
    compared = None if allow_drift else read_result(folder).get("compared")
    return {"test": metrics, "compared": compared}


def open_scored(config: Config, allow_drift: bool) -> Folder:
    """The folder of the run that --eval-only scores. Raises ValueError where it is not finished or
    was another recipe, and unless `allow_drift` where its files have changed."""
    folder = run_folder(config)
    set_up_torch(config)
    if not folder.result.exists():
        raise ValueError(
            f"{folder.path} holds no finished run (no result.json); train it without --eval-only"
        )
    for note in check_run(folder, allow_drift):
        print(note)
    refuse_other_trajectory(config, folder)
    return folder


def load_same_rows(config: Config, folder: Folder) -> Data:
    """The rows of a run. Raises ValueError where they are others than when it was trained, or none
    is for the test."""
    data = load_rows(config)
    check_same_rows(config, folder, data.fingerprint, data.splits)
    return data


def check_same_rows(
    config: Config, folder: Folder, fingerprint: str, splits: Collection[str]
) -> None:
    """Raise ValueError where a run's rows are others than when it was trained, or none is for the
    test."""
    if fingerprint != folder.read_json("data.json", "fingerprint")["fingerprint"]:
        raise ValueError(
            f"the rows of {config.data.source} have changed since {folder.path} was trained: its "
            "test rows may have been trained on. Restore them, or train again with --fresh."
        )
    if "test" not in splits:
        raise ValueError(f"{folder.path} has no test split (data.test is 0)")


def score_rows(
    config: Config, data: Data, model: nn.Module, batches: Iterable[Batch], scorer: Scorer
) -> dict[str, Any]:  # fmt: skip
    """The metrics of the test rows' batches, with the bag beside the encoder where one is."""
    fusion = load_fusion(run_folder(config).model, scorer.num_labels)
    if fusion is None:
        return scorer.evaluate(model, batches)
    rows, cached = data.splits["test"], config.data.cache
    parts = fused_logits(model, fusion, batches, rows, data.fingerprint, cached, scorer.precision)
    return scorer.score(rows, parts[BOTH])
