"""Answers of a GGUF file: see __init__.py beside this. By llama.cpp where llama-cpp-python is
installed; else by transformers, which reads the file back into a model of its own."""

import importlib.util
import json
import resource
import sys
import time


def by_llama(file: str, questions: dict) -> dict:
    """Greedy replies, and the log-probabilities of openloop's."""
    import llama_cpp
    import numpy as np
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    words = llama_cpp.Llama(file, vocab_only=True, verbose=False)
    template, texts = words.metadata.get("tokenizer.chat_template", ""), questions["messages"]
    if not questions["plain"]:
        end, begin = (
            "" if token < 0 else words._model.token_get_text(token)
            for token in (words.token_eos(), words.token_bos())
        )
        formatted = Jinja2ChatFormatter(template, end, begin)
        texts = [formatted(messages=messages).prompt for messages in texts]
    prompts = [words.tokenize(text.encode(), add_bos=False, special=True) for text in texts]
    most = max(
        len(p) + max(questions["tokens"], len(r))
        for p, r in zip(prompts, questions["replies"], strict=True)
    )
    model = llama_cpp.Llama(
        file, n_ctx=most + 1, n_threads=questions["threads"], logits_all=True, verbose=False
    )
    answers: dict = {"prompts": prompts, "replies": [], "logprobs": [], "seconds": 0.0, "tokens": 0}
    for prompt, reply in zip(prompts, questions["replies"], strict=True):
        start = time.perf_counter()
        new: list[int] = []
        model.reset()
        model.eval(prompt)
        while len(new) < questions["tokens"]:
            token = int(np.argmax(model.scores[model.n_tokens - 1]))
            if token in questions["ends"]:
                break
            new.append(token)
            model.eval([token])
        answers["seconds"] += time.perf_counter() - start
        answers["tokens"] += len(new) + 1
        model.reset()
        model.eval([*prompt, *reply])
        logits = np.array(model.scores[len(prompt) - 1 : model.n_tokens], dtype=float)  # (T, V)
        by_token = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        answers["replies"].append(new)
        answers["logprobs"].append([by_token[i, token] for i, token in enumerate(reply)])
    return answers | {
        "versions": {"gguf": llama_cpp.__version__},
        "extra": {"by": f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"},
    }


def by_transformers(folder: str, questions: dict) -> dict:
    """The same by a model that transformers makes of the file."""
    import torch
    import transformers

    torch.set_num_threads(questions["threads"])
    options = {"gguf_file": "model.gguf", "dtype": torch.float32}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    answers: dict = {"prompts": [], "replies": [], "logprobs": [], "seconds": 0.0, "tokens": 0}
    for messages, reply in zip(questions["messages"], questions["replies"], strict=True):
        text = messages
        if not questions["plain"]:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        prompt, start = ids[0].tolist(), time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=questions["tokens"], eos_token_id=questions["ends"] or None,
            )[0, len(prompt) :].tolist()  # fmt: skip
            answers["seconds"] += time.perf_counter() - start
            both = torch.tensor([prompt + reply])
            logprobs = model(input_ids=both).logits[0].double().log_softmax(-1)  # (T, V)
        end = next((i for i, token in enumerate(out) if token in questions["ends"]), len(out))
        new = out[:end]
        answers["tokens"] += len(new) + 1
        answers["prompts"].append(prompt)
        answers["replies"].append(new)
        answers["logprobs"].append(
            [logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(reply)]
        )
    extra = {"by": f"transformers {transformers.__version__}, as llama-cpp-python is not installed"}
    return answers | {"versions": {"transformers": transformers.__version__}, "extra": extra}


def main(folder: str, questions_path: str, answers_path: str) -> None:
    with open(questions_path, encoding="utf-8") as file:
        questions = json.load(file)
    if importlib.util.find_spec("llama_cpp") is not None:
        answers = by_llama(f"{folder}/model.gguf", questions)
    else:
        answers = by_transformers(folder, questions)
    answers["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with open(answers_path, "w", encoding="utf-8") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
