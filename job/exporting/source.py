"""A finished run, opened to be written in another format."""

from pathlib import Path

from engine.decision import Decision
from files.read import read_json
from job.chatting.load import FORM
from job.ending import reading
from job.exporting.format import Source
from job.folder import Folder, finished_config
from job.predicting.texts import read_texts
from job.speed import set_up_torch
from job.testing.decided import read_decision
from job.training.loss import target_of
from models.export import load_exported
from models.ngrams.bag import NgramBag
from models.ngrams.fusion import load_fusion


def open_source(
    folder: Folder, allow_code: bool, base: Path | None, allow_network: bool,
    base_model: str | None = None,
) -> Source:  # fmt: skip
    """The model of a run folder that check_run has passed, plain and on the CPU. Raises ValueError
    where there is none, where the base of its adapter is gone, and for a bag of n-grams alone,
    which needs no other format."""
    config = finished_config(folder)
    set_up_torch(config)
    with reading(f"the model in {folder.path}"):
        model, tokenizer, args = load_exported(
            folder.model, allow_code, base, allow_network, verified=True
        )
    if isinstance(model, NgramBag):
        raise ValueError(
            f"{folder.path} is a bag of n-grams, which numpy opens as it is: copy {folder.model}, "
            'and ask it with  python predict_ngrams.py "a text"'
        )
    if args.form == "language":
        plain = bool(read_json(folder.model / FORM, ["texts"])["texts"])
        return Source(folder, config, model, tokenizer, args, Decision("chat"),
                      plain_texts=plain, base=base, base_model=base_model)  # fmt: skip
    with reading(f"the model in {folder.path}"):
        fusion = load_fusion(folder.model, args.num_labels)
        decision = read_decision(folder.model, args)
    if fusion is not None:  # it was fitted for both together
        decision = Decision(args.kind, target=target_of(args))
    texts = read_texts(config, model, tokenizer)
    return Source(folder, config, model, tokenizer, args, decision, texts, fusion,
                  base=base, base_model=base_model)  # fmt: skip
