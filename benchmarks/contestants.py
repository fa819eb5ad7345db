"""One contestant in a process of its own, working in windows of time when told to (child.py).

    python benchmarks/contestants.py CONTESTANT WORK CONFIG.toml

CONTESTANT is openloop or one of stock.OPTIONS; WORK is train, evaluate, or learn: train once to
the end with evaluations at fixed steps, and answer with the learning curve.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from arithmetic import Shape, shape_of
from child import Stopwatch, Window, answer, import_bytes  # makes the project importable
from windows import Child

from configs.read import read_config, write_config
from configs.schema import Config
from engine.wait_policy import wait_passively


def make_shape(config: Config, model: Any, work: str) -> Shape:
    """What work on this transformers model counts."""
    rank = config.lora.rank if config.lora else 0
    trains: Literal["nothing", "lora", "all"] = "lora" if config.lora else "all"
    if work == "evaluate":
        trains = "nothing"
    return shape_of(model.config, rank, trains)


def row_lengths(batch: dict[str, Any]) -> list[int]:
    """Real tokens of each row of a batch."""
    return batch["attention_mask"].sum(1).tolist()


class Openloop:
    """The engine's own fit() and evaluate(), called as a run calls them."""

    def __init__(self, config: Config) -> None:
        # all that is imported stands here, so that its memory can be told apart
        from engine.decision import Decision
        from engine.evaluate import evaluate
        from engine.loop import fit
        from engine.losses import count_items
        from engine.metrics import build_counter
        from engine.plan import Progress
        from engine.stop import StopRequest
        from job.fit import epoch_batches, split_batches
        from job.tasks.table import prepare

        self.imports = import_bytes()
        self.evaluate_rows, self.fit, self.stop = evaluate, fit, StopRequest()
        self.epoch_batches, self.split_batches = epoch_batches, split_batches
        self.count_items, self.build_counter = count_items, build_counter
        self.job, self.progress = prepare(config, allow_code=False), Progress()
        self.decision = Decision(self.job.data.kind)
        self.dtype = self.job.precision.dtype
        self.backbone = self.job.built.model  # with its native head: the transformers model

    def _fit(self, on_step: Any, on_evaluation: Any) -> None:
        """Train to the end; `on_step` gets the lengths of the rows of each step."""
        job = self.job
        waiting: list[int] = []  # lengths of the rows that were taken and not yet counted

        def batches(epoch: int, start: int) -> Iterator[Any]:
            for batch in self.epoch_batches(job, epoch, start):
                waiting.extend(row_lengths(batch["inputs"]))
                yield batch

        def count(result: Any, progress: Any, rate: float) -> None:
            lengths = waiting.copy()
            waiting.clear()
            on_step(lengths)

        self.fit(
            job.built.model, batches, job.compute_loss, self.count_items, job.optimizer, job.scaler,
            job.schedule, job.precision, job.plan, self.progress, count, on_evaluation,
            lambda progress: None, self.stop,
        )  # fmt: skip

    def train(self, window: Window) -> None:
        """Train for as many windows as are asked for."""
        window.wait()
        self._fit(window.count, lambda progress: None)

    def _evaluate(self) -> dict[str, Any]:
        job = self.job
        counter = self.build_counter(self.decision, job.num_labels, job.precision.device)
        return self.evaluate_rows(
            job.built.model, self.split_batches(job, "validation"), job.loss_fn, counter,
            job.precision,
        )  # fmt: skip

    def learn(self) -> list[list[float]]:
        """[step, seconds of training, validation accuracy] at each evaluation."""
        curve, clock = [], Stopwatch()

        def run_evaluation(progress: Any) -> None:
            seconds = clock.seconds()
            with clock.paused():
                curve.append([progress.step, seconds, self._evaluate()["accuracy"]])

        self._fit(lambda lengths: None, run_evaluation)
        return curve


class OpenloopScoring:
    """Evaluation alone, put together as job/testing/score.py does it: nothing of training is
    prepared."""

    def __init__(self, config: Config) -> None:
        from data.loaders import eval_batches
        from data.prepare import load_data
        from engine.decision import Decision
        from engine.evaluate import evaluate
        from engine.losses import build_loss
        from engine.metrics import build_counter
        from engine.precision import choose_precision
        from engine.targets import Target
        from job.predicting.predictor import make_padding
        from job.rows import data_args
        from job.speed import evaluation_rows, feed_batches, set_up_torch, speed_up_model
        from job.training.labelled import encode_split, make_model_args
        from models.build import build_model
        from models.load import load_tokenizer

        self.imports = import_bytes()
        set_up_torch(config)
        precision = choose_precision(config.precision.device, config.precision.dtype)
        tokenizer, data = load_tokenizer(config.model.source), load_data(data_args(config))
        args = make_model_args(config, data, Target(), allow_code=False)
        model = build_model(args, tokenizer, config.run.seed).model.to(precision.device)
        speed = speed_up_model(model, config, precision)
        rows_at_once = evaluation_rows(config, model, precision.device)
        loss_fn, _ = build_loss(data.kind, device=precision.device)
        self.rows = encode_split(config, tokenizer, data, "validation").dataset
        self.dtype, self.backbone = precision.dtype, model

        def run(on_batch: Any) -> None:
            batches = feed_batches(
                eval_batches(self.rows, rows_at_once, make_padding(tokenizer)),
                speed, precision.device,
            )  # fmt: skip
            counter = build_counter(Decision(data.kind), args.num_labels, precision.device)
            evaluate(model, batches, loss_fn, counter, precision, on_batch)

        self.run = run

    def evaluate(self, window: Window) -> None:
        """Evaluate all validation rows again and again. Only whole passes count: long rows come
        first."""
        window.wait()
        lengths: list[int] = []
        while True:
            self.run(lambda batch, logits: lengths.extend(row_lengths(batch["inputs"])))
            window.count(lengths)
            lengths.clear()


def build(config: Config, name: str, work: str) -> Any:
    """The contestant that does this work."""
    if name == "openloop":
        wait_passively()  # as a run does; the stock Trainer's threads wait as they come
        return OpenloopScoring(config) if work == "evaluate" else Openloop(config)
    from stock import Stock

    return Stock(config, name)


def start_child(
    name: str, work: str, config: Config, environment: Mapping[str, str] | None = None
) -> Child:
    """A contestant in a process of its own, with this added to its environment."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "config.toml"
    write_config(config, path)
    command = [sys.executable, __file__, name, work, str(path)]
    return Child(command, folder, environment)


def main() -> None:
    sys.stdout = sys.stderr  # the parent reads the real standard output
    name, work, path = sys.argv[1:]
    config = read_config(Path(path))
    contestant = build(config, name, work)
    answer({"dtype": contestant.dtype, "imports": contestant.imports})
    if work == "learn":
        answer({"curve": contestant.learn(), "dtype": contestant.dtype})
    else:
        getattr(contestant, work)(Window(make_shape(config, contestant.backbone, work)))


if __name__ == "__main__":
    main()
