"""One contestant in a process of its own, working in windows of time when told to (child.py).

    python benchmarks/contestants.py CONTESTANT WORK CONFIG.toml

CONTESTANT is openloop (or openloop_…, which differs in its config) or one of trainer.OPTIONS; WORK
is train, evaluate, or learn: train once to the end with evaluations at fixed steps, and answer with
the learning curve.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arithmetic import Trains, shape_of
from arithmetic_decoder import chat_work, decoder_shape
from child import Counts, Stopwatch, Window, answer, import_bytes  # makes the project importable
from windows import Child

from configs.read import read_config, write_config
from configs.schema import Config
from engine.wait_policy import wait_passively

FIGURES = {"classify": "accuracy", "chat": "perplexity"}  # of a learning curve


def make_shape(config: Config, model: Any, work: str) -> Counts:
    """What work on this transformers model counts."""
    rank = config.lora.rank if config.lora else 0
    trains: Trains = "lora" if config.lora else "all"
    if work == "evaluate":
        trains = "nothing"
    shape = decoder_shape if config.task.kind == "chat" else shape_of
    return shape(model.config, rank, trains)


def batch_numbers(batch: dict[str, Any]) -> list[int]:
    """The numbers by which a shape counts a batch of openloop's: of texts the real tokens of each
    row, of conversations what chat_work says."""
    if batch["labels"].dim() == 2:  # a label for each token
        return chat_work(batch["inputs"], batch["labels"]).tolist()
    return batch["inputs"]["attention_mask"].sum(1).tolist()


class Openloop:
    """The engine's own fit() and evaluation, called as a run calls them."""

    def __init__(self, config: Config) -> None:
        # all that is imported stands here, so that its memory can be told apart
        from engine.loop import fit
        from engine.losses import count_items
        from engine.plan import Progress
        from engine.stop import StopRequest
        from job.fit import epoch_batches, split_batches
        from job.tasks.table import prepare, task_of

        task_of(config).libraries()
        self.imports = import_bytes()
        self.fit, self.stop = fit, StopRequest()
        self.epoch_batches, self.split_batches = epoch_batches, split_batches
        self.count_items = count_items
        self.job, self.progress = prepare(config, allow_code=False), Progress()
        self.dtype = self.job.precision.dtype
        self.backbone = self.job.built.model  # with its native head: the transformers model

    def _fit(self, on_step: Any, on_evaluation: Any) -> None:
        """Train to the end; `on_step` gets the numbers of each step."""
        job = self.job
        waiting: list[int] = []  # numbers of the batches that were taken and not yet counted

        def batches(epoch: int, start: int) -> Iterator[Any]:
            for batch in self.epoch_batches(job, epoch, start):
                waiting.extend(batch_numbers(batch))
                yield batch

        def count(result: Any, progress: Any, rate: float) -> None:
            numbers = waiting.copy()
            waiting.clear()
            on_step(numbers)

        self.fit(
            job.built.model, batches, job.compute_loss, self.count_items, job.optimizer, job.scaler,
            job.schedule, job.precision, job.plan, self.progress, count, on_evaluation,
            lambda progress: None, self.stop,
        )  # fmt: skip

    def train(self, window: Window) -> None:
        """Train for as many windows as are asked for."""
        window.wait()
        self._fit(window.count, lambda progress: None)

    def learn(self) -> list[list[float]]:
        """[step, seconds of training, the figure of the validation rows] at each evaluation."""
        curve, clock, figure = [], Stopwatch(), FIGURES[self.job.config.task.kind]

        def run_evaluation(progress: Any) -> None:
            seconds = clock.seconds()
            with clock.paused():
                batches = self.split_batches(self.job, "validation")
                metrics = self.job.task.evaluate(self.job, batches)
                curve.append([progress.step, seconds, metrics[figure]])

        self._fit(lambda numbers: None, run_evaluation)
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
            self.run(lambda batch, logits: lengths.extend(batch_numbers(batch)))
            window.count(lengths)
            lengths.clear()


def build(config: Config, name: str, work: str) -> Any:
    """The contestant that does this work."""
    if name.startswith("openloop"):
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
        shape, shares = make_shape(config, contestant.backbone, work), config.task.kind == "chat"
        getattr(contestant, work)(Window(shape, shares=shares))


if __name__ == "__main__":
    main()
