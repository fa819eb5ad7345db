"""--eval-only for a language model: its own test conversations once more. Nothing is written."""

from pathlib import Path
from typing import Any

from configs.schema import Config
from data.chat.batches import collate_chats
from data.loaders import eval_batches
from engine.precision import choose_precision
from job.chatting.loss import evaluate_chats
from job.chatting.prepare import encode_split
from job.chatting.rows import load_chat_rows
from job.ending import reading
from job.predicting.predictor import made_with, make_padding
from job.speed import evaluation_rows, feed_batches, speed_up_model
from job.testing.score import check_same_rows, open_scored
from models.export import load_exported


def score_finished_chat(
    config: Config, base: Path | None, allow_code: bool, allow_drift: bool, allow_network: bool
) -> dict[str, Any]:
    """The answer to Task.score. Raises ValueError where the run is not finished, was another
    recipe, has no test rows, or where its rows have changed since; unless `allow_drift`, also where
    its files have."""
    folder = open_scored(config, allow_drift)
    chats = load_chat_rows(config)
    check_same_rows(config, folder, chats.fingerprint, chats.splits)
    with reading(f"the model in {folder.path}"):
        model, tokenizer, _ = load_exported(
            folder.model, allow_code, base, allow_network, verified=True
        )
    wanted = config.precision
    precision = choose_precision(wanted.device, wanted.dtype, made_with(folder).get("dtype"))
    model.to(precision.device)
    speed = speed_up_model(model, config, precision)
    encoded, _ = encode_split(config, tokenizer, chats, "test")
    rows_at_once = evaluation_rows(config, model, precision.device)
    batches = eval_batches(
        encoded.dataset, rows_at_once, make_padding(tokenizer), join=collate_chats
    )
    batches = feed_batches(batches, speed, precision.device)
    return {"test": evaluate_chats(model, batches, precision)}
