"""How long one short text takes: a finished run beside its base model in plain transformers.

    python benchmarks/latency.py --run runs/imdb_lora
    python benchmarks/latency.py --run runs/imdb_lora --text "Not a fan." --rounds 500

All answer in turn in one process, and each round counts as ratios, so a machine whose speed drifts
slows all of them. The others know neither adapters nor a head, clean nothing and give no
probabilities: what they take is a lower bound of what the same answer would take there.
onnxruntime stands beside them where it is installed, with the onnx that exports to it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import child  # noqa: F401  makes the project importable

if TYPE_CHECKING:
    from job.predicting.predictor import Predictor

Ask = Callable[[], Any]
ONNX = ("onnxruntime", "onnx", "onnxscript")


def ask_transformers(source: str, text: str) -> Ask:
    """The source's tokenizer and backbone as they come."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source)
    model.eval()

    def ask() -> Any:
        with torch.inference_mode():
            return model(**tokenizer([text], return_tensors="pt")).last_hidden_state

    return ask


def ask_onnxruntime(source: str, text: str, threads: int) -> Ask:
    """The same backbone, exported at the length of the text and run by onnxruntime."""
    import onnxruntime
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source)
    tokens = dict(tokenizer([text], return_tensors="pt"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # threads that spin on between two answers would take the cores of whoever's turn is next
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(model.eval(), (), path, kwargs=tokens, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def ask() -> Any:
        tokens = tokenizer([text], return_tensors="np")
        return session.run(None, {name: tokens[name] for name in names})

    return ask


def take_turns(contestants: dict[str, Ask], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, after a tenth as many to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-max(1, rounds // 10), rounds):
        for name, ask in contestants.items():
            start = time.perf_counter()
            ask()
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def table(times: Mapping[str, Sequence[float]]) -> str:
    """Milliseconds, and the median of the rounds' ratios to the first contestant."""
    first = next(iter(times.values()))
    lines = ["| who | median ms | best ms | times the first |", "| :-- | --: | --: | --: |"]
    for name, seconds in times.items():
        ratio = median(ours / base for ours, base in zip(seconds, first, strict=True))
        best = min(seconds) * 1e3
        lines.append(f"| {name} | {median(seconds) * 1e3:.2f} | {best:.2f} | {ratio:.2f} |")
    return "\n".join(lines)


def make_contestants(predictor: "Predictor", source: str, text: str) -> dict[str, Ask]:
    """Whoever is installed, plain transformers first."""
    import torch

    contestants = {"transformers": ask_transformers(source, text)}
    if all(map(find_spec, ONNX)):
        contestants["onnxruntime"] = ask_onnxruntime(source, text, torch.get_num_threads())
    return contestants | {"openloop": lambda: predictor([text])}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--text", default="It was good.", help="what is asked")
    parser.add_argument("--rounds", type=int, default=300, help="answers of each")
    parser.add_argument("--threads", type=int, help="of all of them (default: as in the run)")
    options = parser.parse_args()
    import torch

    from openloop import load_run
    from job.folder import Folder, finished_config
    from models.load import resolve_source

    try:
        model = finished_config(Folder(options.run)).model
        predictor = load_run(options.run, device="cpu")
        source = resolve_source(model.source, model.revision)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if options.threads:
        torch.set_num_threads(options.threads)
    contestants = make_contestants(predictor, source, options.text)
    print(f"{torch.get_num_threads()} threads, openloop in {predictor.precision.dtype}")
    print(table(take_turns(contestants, options.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
