"""Merged weights that transformers opens by itself: pipeline("text-classification") where the head
is transformers' own, AutoModelForCausalLM for chat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from job.exporting.format import Parity, Source, Written, exact

if TYPE_CHECKING:
    from models.texts import Texts


class Transformers:
    """The answers to Format. What is heavy is imported in them."""

    tool = "transformers"
    library = "transformers"
    relation = "finetune"
    promise = "the same labels or replies, probabilities and logits to 1e-4"
    checker = "transformers.py"

    def refuses(self, source: Source) -> str | None:
        from models.heads import Classifier
        from models.methods.method import can_merge

        if isinstance(source.model, Classifier):
            return (
                "it has a head of openloop's, which no class of transformers holds: use --to "
                "sentence-transformers or --to onnx, or train with head.kind=native"
            )
        if not can_merge(source.model):
            return "what its method added cannot go into the weights: use --to peft"
        return None if source.texts is None else why_not_cut(source.texts)

    def needs(self) -> None:
        """Nothing more than a run."""

    def write(self, source: Source, folder: Path) -> Written:
        from job.exporting.decided import write_folded
        from models.elsewhere.merged import write_native

        if source.texts is None:
            drift = write_native(source.model, source.tokenizer, folder)
            return Written(source.decision, [f"The method is merged; drift {drift:.1e}."])
        return write_folded(source, folder, write_native)

    def judge(self, parity: Parity) -> list[str]:
        return exact(parity)

    def usage(self, source: Source, name: str) -> str:
        return chat_usage(source, name) if source.texts is None else pipeline_usage(source, name)


def why_not_cut(texts: Texts) -> str | None:
    """Why the tokenizer alone does not read long texts as the run did; None where it does."""
    if texts.windows is not None:
        return (
            "it reads long texts in windows and joins their vectors, which no file of another tool "
            "says: use predict.py or serve.py, or train with data.long=cut"
        )
    if texts.ends is not None:
        return (
            "of long texts it reads both ends, and no tokenizer truncates so: use predict.py or "
            "serve.py, or train with data.long=cut"
        )
    return None


def pipeline_usage(source: Source, name: str) -> str:
    """A pipeline, and what it is asked."""
    assert source.texts is not None
    example = (
        '{"text": "a first text", "text_pair": "and a second one"}'
        if source.texts.pairs
        else '"It was good."'
    )
    more = "" if source.args.kind == "regression" else ", top_k=None"
    return (
        "from transformers import pipeline\n\n"
        "# truncation=True: without it no tokenizer cuts, and a long text ends in an error\n"
        f'ask = pipeline("text-classification", model={name!r}, truncation=True)\n'
        f"print(ask({example}{more}))\n"
    )


def chat_usage(source: Source, name: str) -> str:
    """A reply, or where the model goes on with texts how it goes on."""
    opened = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"tokenizer = AutoTokenizer.from_pretrained({name!r})\n"
        f"model = AutoModelForCausalLM.from_pretrained({name!r})\n"
    )
    prompt = (
        'inputs = tokenizer("Once upon a time", return_tensors="pt")\n'
        if source.plain_texts
        else "inputs = tokenizer.apply_chat_template(\n"
        '    [{"role": "user", "content": "Hello!"}],\n'
        '    add_generation_prompt=True, return_dict=True, return_tensors="pt",\n)\n'
    )
    return opened + prompt + (
        "ids = model.generate(**inputs, do_sample=False, max_new_tokens=64)\n"
        'new = ids[0, inputs["input_ids"].shape[1] :]\n'
        "print(tokenizer.decode(new, skip_special_tokens=True))\n"
    )  # fmt: skip
