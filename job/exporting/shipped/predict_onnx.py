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
CLEAN, PARTS = CleanArgs(**READING["clean"]), 1 + READING["pairs"]
GRAPH, TOKENS = InferenceSession(HERE / "model.onnx"), Tokenizer.from_file(f"{HERE}/tokenizer.json")
INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def answer(texts: list) -> list[dict]:
    """An answer for each text, or pair of texts (a tuple); where it is none its number, why."""
    rows = [tuple(clean_text(t, CLEAN) for t in ((x,) if isinstance(x, str) else x)) for x in texts]
    usable = [len(row) == PARTS and all(part.strip() for part in row) for row in rows]
    good = [row if PARTS == 2 else row[0] for row, fits in zip(rows, usable, strict=True) if fits]
    answers = iter(decide(ask(good)) if good else [])
    wrong = f"expected {'two texts' if PARTS == 2 else 'a text'}; after cleaning nothing is left"
    return [next(answers) if u else {"number": i, "error": wrong} for i, u in enumerate(usable, 1)]


def ask(texts: list) -> np.ndarray:
    """Logits (N, C) of cleaned texts, or of pairs of texts (tuples); TOKENS cuts and pads them."""
    order, logits = sorted(range(len(texts)), key=lambda i: len("".join(texts[i]))), []
    for start in range(0, len(texts), 32):
        rows = TOKENS.encode_batch([texts[i] for i in order[start : start + 32]])
        ids = {i.name: [getattr(row, INPUTS[i.name]) for row in rows] for i in GRAPH.get_inputs()}
        logits.extend(GRAPH.run(None, {name: np.array(row) for name, row in ids.items()})[0])
    encoder = np.array(logits)[np.argsort(order)]
    if READING["bag"] is None:
        return encoder
    flat = [part for text in texts for part in ([text] if isinstance(text, str) else text)]
    fixed = {"kind": "regression", "target_mean": 0, "target_deviation": 1}
    bag = dict(np.load(HERE / "bag/ngrams.npz")) | fixed
    beside = runpy.run_path(str(HERE / "bag/predict_ngrams.py"))["predict"](bag, flat)  # its logits
    return READING["bag"]["encoder"] * encoder + READING["bag"]["bag"] * beside


if __name__ == "__main__":
    if {"-h", "--help"} & {*sys.argv[1:]}:
        sys.exit(print(__doc__))
    lines = sys.argv[1:] or [line.rstrip("\r\n") for line in sys.stdin]
    for row in answer([tuple(line.split("\t")) if PARTS == 2 else line for line in lines]):
        print(json.dumps(row, ensure_ascii=False))
