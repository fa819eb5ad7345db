"""Answers of an exported folder in sentence-transformers: see __init__.py beside this."""

import json
import resource
import sys
import time

import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer


def main(folder: str, questions_path: str, answers_path: str) -> None:
    with open(questions_path, encoding="utf-8") as file:
        questions = json.load(file)
    torch.set_num_threads(questions["threads"])
    model = SentenceTransformer(folder, device="cpu")
    texts, size = questions["texts"], questions["batch"]
    model.encode(texts[:size], batch_size=size)  # the first batch of a process takes longer
    start = time.perf_counter()
    outputs = model.encode(texts, batch_size=size, show_progress_bar=False)
    answers = {
        "outputs": outputs.tolist(), "shares": None, "labels": None,
        "seconds": time.perf_counter() - start, "rows": len(texts),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"sentence-transformers": sentence_transformers.__version__,
                     "torch": torch.__version__},
    }  # fmt: skip
    with open(answers_path, "w", encoding="utf-8") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
