"""python predict_onnx.py "a text" "another one", or a text a line on standard input; of a pair
both, a tab between. By onnxruntime, numpy and tokenizers alone; prints a JSON object a text."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

sys.path.insert(0, str(HERE := Path(__file__).resolve().parent))
from decide import decide  # beside this, as data/ is, both of openloop

from data.clean import CleanArgs, clean_text

READING = json.loads((HERE / "reading.json").read_text(encoding="utf-8"))
GRAPH, TOKENS = InferenceSession(HERE / "model.onnx"), Tokenizer.from_file(f"{HERE}/tokenizer.json")
INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def ask(texts: list) -> np.ndarray:
    """Logits (N, C) of cleaned texts, or of pairs of texts (tuples); TOKENS cuts and pads them."""
    order, logits = sorted(range(len(texts)), key=lambda i: len("".join(texts[i]))), []
    for start in range(0, len(texts), 32):
        rows = TOKENS.encode_batch([texts[i] for i in order[start : start + 32]])
        ids = {i.name: [getattr(row, INPUTS[i.name]) for row in rows] for i in GRAPH.get_inputs()}
        logits.extend(GRAPH.run(None, {name: np.array(given) for name, given in ids.items()})[0])
    encoder = np.array(logits)[np.argsort(order)]
    if READING["bag"] is None:
        return encoder
    flat = [part for text in texts for part in ([text] if isinstance(text, str) else text)]
    bag = dict(
        np.load(HERE / "bag/ngrams.npz"), kind="regression", target_mean=0, target_deviation=1
    )
    beside = runpy.run_path(str(HERE / "bag/predict_ngrams.py"))["predict"](bag, flat)  # its logits
    return READING["bag"]["encoder"] * encoder + READING["bag"]["bag"] * beside


if __name__ == "__main__":
    clean, two = CleanArgs(**READING["clean"]), READING["pairs"]
    lines = sys.argv[1:] or [line.rstrip("\n") for line in sys.stdin]
    rows = [[clean_text(t, clean) for t in (line.split("\t") if two else [line])] for line in lines]
    if not rows or not all(len(row) == 1 + two and all(row) for row in rows):
        sys.exit("expected texts, of a pair both with a tab between; got none, or an empty one")
    for answer in decide(ask([tuple(row) if two else row[0] for row in rows])):
        print(json.dumps(answer, ensure_ascii=False))
