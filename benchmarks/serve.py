"""How fast serve.py answers, many clients and one alone, beside predict.py on the same texts.

    python benchmarks/serve.py --run runs/imdb_quick
    python benchmarks/serve.py --run runs/imdb_quick --clients 8 --rounds 5 --write
    python benchmarks/serve.py --run runs/imdb_quick --onnx exported    # by export.py --to onnx

The run's own test texts, cut to lengths of every size, are labelled in turn as `predict.py --file`
does it, in this process, and by a server of its own process, which is asked over connections that
are kept. Each round is a pair, so a machine whose speed drifts slows both.
"""

import argparse
import http.client
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import child  # noqa: F401  makes the project importable

if TYPE_CHECKING:
    from configs.schema import Config
    from job.predicting.predictor import Predictor

ROOT = Path(__file__).resolve().parent.parent
HEADERS = {"Content-Type": "application/json"}
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


@dataclass
class Round:
    """One pair: seconds of predict.py's way and of the clients, and of each request; of onnxruntime
    where it takes part."""

    alone: float
    served: float
    requests: list[float]
    onnx: float | None = None


def mixed_texts(run: Path, count: int) -> list[str]:
    """Texts of the run's test rows, each cut to some number of its words: short ones too."""
    lines = (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    draw = random.Random(0)
    mixed = []
    for number in range(count):
        words = texts[number % len(texts)].split()
        mixed.append(" ".join(words[: draw.randint(min(3, len(words)), len(words))]))
    return mixed


@contextmanager
def server(run: Path) -> Iterator[int]:
    """serve.py in a process of its own; its port."""
    words = [sys.executable, str(ROOT / "serve.py"), "--run", str(run), "--port", "0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, encoding="utf-8")
    assert process.stderr is not None
    try:
        told = []
        for line in process.stderr:
            told.append(line)
            if match := ADDRESS.search(line):
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield int(match.group(1))
                return
        raise SystemExit("serve.py did not start:\n" + "".join(told))
    finally:
        process.terminate()
        process.wait(60)


def post(wire: http.client.HTTPConnection, text: str) -> float:
    """Ask for one text; the seconds until its answer was read."""
    begun = time.perf_counter()
    wire.request("POST", "/predict", json.dumps({"inputs": text}), HEADERS)
    answer = wire.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"status {answer.status}: {body!r}")
    return time.perf_counter() - begun


def ask_all(port: int, texts: Sequence[str], clients: int) -> tuple[float, list[float]]:
    """All texts by so many clients, each its share one after the other; seconds of all, of each."""
    times: list[list[float]] = [[] for _ in range(clients)]

    def work(number: int) -> None:
        wire = http.client.HTTPConnection("127.0.0.1", port)
        times[number] = [post(wire, text) for text in texts[number::clients]]
        wire.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    answered = [one for own in times for one in own]
    if len(answered) != len(texts):
        raise SystemExit(f"{len(texts) - len(answered)} requests were not answered")
    return seconds, answered


def label_file(predictor: "Predictor", config: "Config", path: Path) -> float:
    """Seconds that predict.py --file takes for a file, its model being there."""
    from job.predicting.inputs import file_source
    from job.predicting.outputs import Count, answer_items, make_shape, write_file

    begun, count = time.perf_counter(), Count()
    column = config.data.text if isinstance(config.data.text, str) else config.data.text[0]
    source = file_source(path, config, [column], None, False)
    shape = make_shape(predictor, None, False)
    answers = answer_items(predictor, source.items(), True, count)
    write_file(path.with_name("answers.jsonl"), shape, answers, None)
    return time.perf_counter() - begun


def open_onnx(folder: Path) -> Callable[[Sequence[str]], object]:
    """What labels texts with a run that export.py wrote as onnx, by its own predict_onnx.py."""
    spec = spec_from_file_location("predict_onnx", folder / "predict_onnx.py")
    if spec is None or spec.loader is None or not (folder / "predict_onnx.py").exists():
        raise ValueError(
            f"--onnx {folder}: there is no predict_onnx.py; export.py --to onnx makes it"
        )
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    clean = module.CleanArgs(**module.READING["clean"])

    def label(texts: Sequence[str]) -> object:
        return module.decide(module.ask([module.clean_text(text, clean) for text in texts]))

    return label


def seconds_of(
    label: Callable[[Sequence[str]], object] | None, texts: Sequence[str]
) -> float | None:
    """Seconds that it takes for all texts; None where nobody takes part."""
    if label is None:
        return None
    begun = time.perf_counter()
    label(texts)
    return time.perf_counter() - begun


def lone_requests(
    predictor: "Predictor", port: int, texts: Sequence[str]
) -> tuple[list[float], list[float]]:
    """Seconds of each text by the predictor itself and by the server, in turn; nobody else asks."""
    wire, own, served = http.client.HTTPConnection("127.0.0.1", port), [], []
    for number, text in enumerate([*texts[:5], *texts]):
        begun = time.perf_counter()
        predictor([text])
        middle = time.perf_counter()
        seconds = post(wire, text)
        if number >= 5:  # the first ones warm up
            own.append(middle - begun)
            served.append(seconds)
    return own, served


def share_at(values: Sequence[float], share: float) -> float:
    """The value below which such a share of the values is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def tables(
    rounds: Sequence[Round], lone: tuple[list[float], list[float]], texts: int, clients: int
) -> str:
    """The figures: rows a second of each round, and milliseconds of a lone request."""
    lines = [
        f"| round | predict.py --file, rows/s | {clients} clients, rows/s | share | p50 ms "
        "| p99 ms | onnxruntime, rows/s |",
        "| --: | --: | --: | --: | --: | --: | --: |",
    ]
    for number, one in enumerate(rounds, start=1):
        p50, p99 = (1e3 * share_at(one.requests, share) for share in (0.5, 0.99))
        lines.append(
            f"| {number} | {texts / one.alone:.0f} | {texts / one.served:.0f} | "
            f"{one.alone / one.served:.2f} | {p50:.0f} | {p99:.0f} | "
            f"{'–' if one.onnx is None else f'{texts / one.onnx:.0f}'} |"
        )
    own, served = (1e3 * median(seconds) for seconds in lone)
    more = 1e3 * median(b - a for a, b in zip(*lone, strict=True))
    lines += [
        "",
        "| one request alone, median ms | predictor itself | server | more |",
        "| :-- | --: | --: | --: |",
        f"| {len(lone[0])} short texts | {own:.2f} | {served:.2f} | {more:.2f} |",
    ]
    return "\n".join(lines)


def measure(options: argparse.Namespace) -> str:
    """All of it; the tables."""
    from openloop import load_run
    from job.folder import Folder, finished_config

    config, predictor = finished_config(Folder(options.run)), load_run(options.run)
    onnx = None if options.onnx is None else open_onnx(options.onnx)
    texts = mixed_texts(options.run, options.clients * options.each)
    short = [" ".join(text.split()[:12]) for text in texts[: options.lone]]
    column = config.data.text if isinstance(config.data.text, str) else config.data.text[0]
    with tempfile.TemporaryDirectory() as folder, server(options.run) as port:
        path = Path(folder) / "texts.jsonl"
        rows = "".join(json.dumps({column: text}) + "\n" for text in texts)
        path.write_text(rows, encoding="utf-8")
        lone = lone_requests(predictor, port, short)
        rounds = []
        for _ in range(options.rounds):
            alone = label_file(predictor, config, path)
            served = ask_all(port, texts, options.clients)
            rounds.append(Round(alone, *served, seconds_of(onnx, texts)))
    return tables(rounds, lone, len(texts), options.clients)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run on texts")
    parser.add_argument("--clients", type=int, default=32, help="that ask at the same time")
    parser.add_argument("--each", type=int, default=50, help="requests of each client")
    parser.add_argument("--lone", type=int, default=100, help="requests of one client alone")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements")
    parser.add_argument("--onnx", type=Path, help="folder of the same run by export.py --to onnx")
    parser.add_argument("--write", action="store_true", help="write benchmarks/serve.md too")
    options = parser.parse_args()
    try:
        shown = measure(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(shown)
    if options.write:
        from machine import processor, usable_cores

        machine = f"- machine: {processor()}, {usable_cores()} cores"
        head = (__doc__ or "").splitlines()[0]
        words = f"    python benchmarks/serve.py --run RUN --clients {options.clients} --write"
        text = f"# serve.py\n\n{head}\n\n{words}\n\n{machine}\n\n{shown}\n"
        (ROOT / "benchmarks/serve.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
