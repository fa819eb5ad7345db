"""A training process that is killed, and resumes to the same bits as one left alone.

python -m gpu_steps.resume RUN MODEL full|lora full|quick|dry      trains in the folder RUN
"""

import hashlib
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.checkpoint import load_optimizer, load_weights, read_state, save_checkpoint
from engine.loop import StepResult
from engine.plan import Progress
from engine.storage import newest_valid, step_folder
from gpu_steps.context import Context, Failed
from gpu_steps.shapes import SMALL, Task, tiny
from gpu_steps.work import make_work, set_up_torch, train, write_model

STEPS, SAVE_EVERY = 24, 3
KINDS = ("full", "lora")
TRIES = 4  # a run may be quicker than its killer


def task_of(kind: str, size: str) -> Task:
    """The task of a training process."""
    task = replace(SMALL, lora=kind == "lora")
    return tiny(task) if size == "dry" else task


def train_in(run: Path, model: Path, kind: str, size: str) -> None:
    """Train to the end, from the newest checkpoint on. Each line of losses.txt is a step and its
    loss to the bit."""
    set_up_torch(deterministic=True)
    device, dtype = ("cpu", "fp32") if size == "dry" else ("cuda", "bf16")
    work = make_work(
        task_of(kind, size), model, device, dtype, compiled=size == "full", accumulate=2,
        steps=STEPS, lr=1e-3, save_every=SAVE_EVERY,
    )  # fmt: skip
    progress, (newest, _) = Progress(), newest_valid(run / "checkpoints")
    if newest is not None:
        load_weights(newest, work.model)
        load_optimizer(newest, work.model, work.optimizer)
        progress = Progress(**read_state(newest)["progress"])
    with (run / "losses.txt").open("a", encoding="utf-8") as losses:

        def note(result: StepResult, progress: Progress) -> None:
            losses.write(f"{progress.step} {result.loss.hex()}\n")
            losses.flush()

        def save(progress: Progress) -> None:
            save_checkpoint(
                run / "checkpoints", work.model, work.optimizer, work.scaler, progress, 2, {}
            )

        train(work, note, progress, save)


def start(run: Path, model: Path, kind: str, size: str) -> subprocess.Popen:
    """The training process."""
    run.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "gpu_steps.resume", str(run), str(model), kind, size]
    return subprocess.Popen(command)


def finish(process: subprocess.Popen) -> None:
    """Wait for a process that must end well."""
    if process.wait() != 0:
        raise Failed(f"the training process ended with {process.returncode}: see the log")


def kill_at(process: subprocess.Popen, run: Path, step: int, wait: float) -> bool:
    """SIGKILL `wait` seconds after that step; False where the process was quicker."""
    path = run / "losses.txt"
    while process.poll() is None:
        if path.exists() and path.read_text(encoding="utf-8").count("\n") >= step:
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        time.sleep(0.002)
    finish(process)
    return False


def traces(run: Path) -> dict[str, str]:
    """Digests of weights and optimizer after the last step, and the loss of each step."""
    last = step_folder(run / "checkpoints", STEPS)
    lines = (run / "losses.txt").read_text(encoding="utf-8").splitlines()
    digests = {f"loss of step {step}": loss for step, loss in map(str.split, lines)}
    for name in ("trainable", "optimizer"):
        content = (last / f"{name}.safetensors").read_bytes()
        digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def kill_and_resume(
    kind: str, context: Context, model: Path, moments: random.Random
) -> dict[str, Any]:
    """The steps after which it was killed, and what differs in the end."""
    whole, killed = (context.scratch / f"{kind}-{name}" for name in ("whole", "killed"))
    alone = start(whole, model, kind, context.size)
    for _ in range(TRIES):
        step, wait = moments.randrange(5, STEPS // 2), moments.uniform(0, 0.02)
        if kill_at(start(killed, model, kind, context.size), killed, step, wait):
            break
        killed = killed.with_name(killed.name + "-again")
    else:
        raise Failed(f"{TRIES} runs were over before they could be killed")
    newest, _ = newest_valid(killed / "checkpoints")
    finish(start(killed, model, kind, context.size))
    finish(alone)
    ours, theirs = traces(killed), traces(whole)
    unlike = [name for name in theirs if ours.get(name) != theirs[name]]
    return {"killed_after": step, "resumed_from": newest and newest.name, "unlike": unlike}


def run(context: Context, figures: dict[str, Any]) -> None:
    figures["steps"], figures["seed"] = STEPS, random.SystemRandom().randrange(2**31)
    model = write_model(task_of("full", context.size), context.scratch / "model")

    def prove(kind: str) -> None:
        moments = random.Random(f"{figures['seed']} {kind}")
        figures[kind] = kill_and_resume(kind, context, model, moments)

    kinds = KINDS if context.size == "full" else KINDS[1:]
    with ThreadPoolExecutor() as pool:  # each waits for processes of its own
        list(pool.map(prove, kinds))
    if unlike := {kind: figures[kind]["unlike"] for kind in kinds if figures[kind]["unlike"]}:
        raise Failed(f"other bits: {unlike}")


if __name__ == "__main__":
    train_in(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
