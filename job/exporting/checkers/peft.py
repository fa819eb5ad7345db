"""Answers of an exported adapter in PEFT, on its base: see __init__.py beside this."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "gelu": torch.nn.functional.gelu}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def open_adapter(folder: Path, auto: Any, **words: Any) -> tuple:
    """(tokenizer, model) of an adapter on its base, which is beside it where it has no name."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = read(folder / "adapter_config.json")
    base = config["base_model_name_or_path"] or folder / "base"
    model = auto.from_pretrained(base, revision=config.get("revision") or "main", **words)
    if auto is not AutoModelForCausalLM:
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer, PeftModel.from_pretrained(model, folder).eval()


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """(B, D) of hidden (B, T, D), by mask (B, T)."""
    rows = torch.arange(len(hidden))
    if how == "mean":
        return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    place = mask.argmax(1) if how == "cls" else (mask * torch.arange(mask.shape[1])).argmax(1)
    return hidden[rows, place]


def with_head(model: torch.nn.Module, folder: Path) -> Callable[..., torch.Tensor]:
    """What gives logits (B, C): the backbone, and the head beside the adapter."""
    about, head = read(folder / "head.json"), load_file(folder / "head.safetensors")
    how = about["pool"] or about["args"].get("pool", "mean")
    activation = ACTIVATIONS[about["args"].get("activation", "tanh")]

    def answer(**batch: torch.Tensor) -> torch.Tensor:
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"]
        pooled = pool(hidden[:, hidden.shape[1] - mask.shape[1] :], mask, how)
        if "dense.weight" in head:
            pooled = activation(pooled @ head["dense.weight"].T + head["dense.bias"])
        return pooled @ head["out.weight"].T + head["out.bias"]

    return answer


def classify(folder: Path, questions: dict) -> dict:
    """Logits of each text, in batches."""
    if (folder / "head.json").is_file():
        tokenizer, model = open_adapter(folder, AutoModel)
        answer = with_head(model, folder)
    else:
        words = {"num_labels": max(1, len(questions["labels"])), "ignore_mismatched_sizes": True}
        tokenizer, model = open_adapter(folder, AutoModelForSequenceClassification, **words)

        def answer(**batch: torch.Tensor) -> torch.Tensor:
            return model(**batch).logits

    texts, size = questions["texts"], questions["batch"]
    pairs = isinstance(texts[0], list)
    outputs = []
    start = time.perf_counter()
    for first in range(0, len(texts), size):
        part = texts[first : first + size]
        columns = [list(column) for column in zip(*part, strict=True)] if pairs else [part]
        batch = tokenizer(*columns, truncation=True, padding=True, return_tensors="pt")
        with torch.inference_mode():
            outputs += answer(**batch).tolist()
    seconds = time.perf_counter() - start
    return {
        "outputs": outputs, "shares": None, "labels": None, "seconds": seconds,
        "rows": len(texts),
    }  # fmt: skip


def chat(folder: Path, questions: dict) -> dict:
    """Greedy replies to each prompt, and what the model thinks of openloop's."""
    tokenizer, model = open_adapter(folder, AutoModelForCausalLM)
    prompts, replies, logprobs, seconds, count = [], [], [], 0.0, 0
    for messages, reply in zip(questions["messages"], questions["replies"], strict=True):
        if questions["plain"]:
            inputs = tokenizer(messages, return_tensors="pt")
        else:
            inputs = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
        prompt = inputs["input_ids"][0].tolist()
        start = time.perf_counter()
        with torch.inference_mode():
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=questions["tokens"])
            seconds += time.perf_counter() - start
            both = torch.tensor([prompt + reply])
            by_token = model(input_ids=both).logits[0].double().log_softmax(-1)  # (T, V)
        by_token = by_token[by_token.shape[0] - both.shape[1] :]  # behind virtual tokens
        new = ids[0, len(prompt) :].tolist()
        count += len(new)
        end = next((i for i, token in enumerate(new) if token in questions["ends"]), len(new))
        prompts.append(prompt)
        replies.append(new[:end])
        places = range(len(prompt) - 1, len(prompt) - 1 + len(reply))
        logprobs.append([by_token[i, token].item() for i, token in zip(places, reply, strict=True)])
    return {
        "prompts": prompts, "replies": replies, "logprobs": logprobs, "seconds": seconds,
        "tokens": count,
    }  # fmt: skip


def main(folder: str, questions_path: str, answers_path: str) -> None:
    questions = read(Path(questions_path))
    torch.set_num_threads(questions["threads"])
    answers = {"classify": classify, "chat": chat}[questions["task"]](Path(folder), questions)
    answers["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answers["versions"] = {"peft": peft.__version__, "transformers": transformers.__version__}
    Path(answers_path).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
