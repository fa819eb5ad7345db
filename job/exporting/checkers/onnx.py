"""Answers of an exported folder by its own predict_onnx.py: see __init__.py beside this. It runs
where torch and transformers cannot be imported."""

import json
import resource
import sys
import time
from typing import Any

import numpy as np


class Refused:
    """Finds the packages that the folder must do without, and finds them missing."""

    names = ("onnx", "torch", "transformers")

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is not to be had here")


def main(folder: str, questions_path: str, answers_path: str) -> None:
    sys.meta_path.insert(0, Refused())
    sys.path.insert(0, folder)
    import onnxruntime
    import predict_onnx

    with open(questions_path, encoding="utf-8") as file:
        questions = json.load(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = questions["threads"], 3
    predict_onnx.GRAPH = onnxruntime.InferenceSession(f"{folder}/model.onnx", options)
    texts = [text if isinstance(text, str) else tuple(text) for text in questions["texts"]]
    predict_onnx.ask(texts[:2])  # the first batch of a process takes longer
    start = time.perf_counter()
    logits = predict_onnx.ask(texts)  # (N, C)
    seconds = time.perf_counter() - start
    decided = predict_onnx.decide(logits)
    answers = {"outputs": logits.tolist(), "seconds": seconds, "rows": len(texts)}
    answers |= {"shares": None, "labels": None}
    if questions["kind"] != "regression":
        answers["shares"] = [list(one["probabilities"].values()) for one in decided]
        answers["labels"] = [one.get("labels", one["label"]) for one in decided]
    answers["extra"] = {"shapes": shapes(f"{folder}/shapes.npz", predict_onnx.GRAPH)}
    answers["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answers["versions"] = {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
    with open(answers_path, "w", encoding="utf-8") as file:
        json.dump(answers, file)


def shapes(path: str, graph: Any) -> dict:
    """How far the graph's logits are off from the model's, by the shape of the rows; what fails is
    said in words."""
    arrays, off = dict(np.load(path)), {}
    for number in range(len({name.partition("/")[0] for name in arrays})):
        inputs = {i.name: arrays[f"{number}/{i.name}"] for i in graph.get_inputs()}
        wanted, shape = arrays[f"{number}/logits"], inputs["input_ids"].shape
        try:
            (got,) = graph.run(None, inputs)
            same = got.shape == wanted.shape
            off[str(shape)] = float(np.abs(got - wanted).max()) if same else f"gave {got.shape}"
        except Exception as error:
            off[str(shape)] = str(error)[:300]
    return off


if __name__ == "__main__":
    main(*sys.argv[1:])
