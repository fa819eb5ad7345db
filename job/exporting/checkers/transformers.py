"""Answers of an exported folder in transformers: see __init__.py beside this."""

import json
import resource
import sys
import time
from operator import itemgetter
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)


def classify(folder: str, questions: dict) -> dict:
    """What a pipeline says of each text by itself, and the model's own outputs in batches."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts, labels = questions["texts"], questions["labels"]
    pairs = isinstance(texts[0], list)
    ask = pipeline("text-classification", model=folder, truncation=True, device="cpu")
    inputs = [{"text": a, "text_pair": b} for a, b in texts] if pairs else texts
    ranked: Any = ask(inputs, top_k=None)  # (N, C) of {label, score}
    scores = [{one["label"]: one["score"] for one in row} for row in ranked]
    answers: dict[str, Any] = {
        "shares": [[row[name] for name in labels or row] for row in scores],
        "labels": None,
    }
    if questions["likeliest"] and questions["kind"] == "single":
        answers["labels"] = [max(row.items(), key=itemgetter(1))[0] for row in scores]
    elif questions["likeliest"] and questions["kind"] == "multi":
        answers["labels"] = [[n for n in labels if row[n] > 0.5] for row in scores]
    lengths = [sum(map(len, text)) for text in texts]  # of a text, letters; of a pair, both
    order = sorted(range(len(texts)), key=lambda i: -lengths[i])
    outputs = [None] * len(texts)

    def run(places: list) -> None:
        chosen = [texts[i] for i in places]
        parts = zip(*chosen, strict=True) if pairs else [chosen]
        batch = tokenizer(*map(list, parts), truncation=True, padding=True, return_tensors="pt")
        with torch.inference_mode():
            for place, row in zip(places, model(**batch).logits.tolist(), strict=True):
                outputs[place] = row

    run(order[-questions["batch"] :])  # the first batch of a process takes longer
    start = time.perf_counter()
    for first in range(0, len(order), questions["batch"]):
        run(order[first : first + questions["batch"]])
    seconds = time.perf_counter() - start
    return answers | {"outputs": outputs, "seconds": seconds, "rows": len(texts)}


def chat(folder: str, questions: dict) -> dict:
    """Greedy replies to each prompt, and what the model thinks of openloop's."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
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
    with open(questions_path, encoding="utf-8") as file:
        questions = json.load(file)
    torch.set_num_threads(questions["threads"])
    answers = {"classify": classify, "chat": chat}[questions["task"]](folder, questions)
    answers["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answers["versions"] = {"transformers": transformers.__version__, "torch": torch.__version__}
    with open(answers_path, "w", encoding="utf-8") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
