"""The share of each fast path: openloop on LoRA at 256, all of [speed] on, and each part off.

    python benchmarks/ablation.py
    python benchmarks/ablation.py --seconds 30 --parts attention,native
    python benchmarks/ablation.py --task lora512

Windows alternate as in speed.py, every finished one is kept in ablation.json, and the same
command does what is missing. Writes ablation.json and ablation.md beside itself, or in --out, with
the task in their names where it is another.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping

from contestants import start_child
from tables import MIB, Windows, machine_lines, show_ratio
from tasks import TASKS, make_config
from windows import Child, Store, add_options, alternate, open_store, round_ratio, speed

TASK, WHOLE = "lora256", "all on"
SETTINGS = {TASK: ", batch 16, dropout 0.1"}
PARTS = {
    "attention": ["speed.attention=false"],
    "dropout": ["speed.dropout=false"],
    "unpad": ["speed.unpad=false"],
    "frozen": ["speed.frozen=false"],
    "lora": ["speed.lora=false"],
    "linear": ["speed.linear=false"],
    "qkv": ["speed.qkv=false"],
    "last_layer": ["speed.last_layer=false"],
    "gelu": ["speed.gelu=false"],
    "gate": ["speed.gate=false"],
    "rotary": ["speed.rotary=false"],
    "norm": ["speed.norm=false"],
    "native": ['speed.native="off"'],
    "allocator": ["speed.allocator=false"],
}
OF_DECODERS = ("gate", "rotary")  # the other tasks have no such parts
OF_ENCODERS = ("last_layer",)
PLAIN = "all off"  # the path a reader sees who switches everything off


def parts_of(task: str) -> list[str]:
    """The parts that a task's model has."""
    decodes = task.startswith(("chat", "gpt2"))
    absent = OF_ENCODERS if decodes else OF_DECODERS
    return [part for part in PARTS if part not in absent]


def overrides_of(name: str) -> list[str]:
    """The settings of a variant."""
    if name == PLAIN:
        return [override for part in PARTS.values() for override in part]
    return PARTS.get(name.removeprefix("without "), [])


def table(windows: Windows) -> str:
    """One row a variant: its speed, and how many times as fast all parts together are."""
    lines = [
        "| | real tokens/s | all on is faster by | peak MiB |",
        "| :-- | --: | --: | --: |",
    ]
    for name, mine in windows.items():
        ratio = "" if name == WHOLE else show_ratio(round_ratio(windows[WHOLE], mine))
        lines.append(
            f"| {name} | {statistics.median(map(speed, mine)):,.0f} | {ratio} "
            f"| {max(window['peak'] for window in mine) / MIB:,.0f} |"
        )
    return "\n".join(lines)


def save(store: Store, machine: Mapping, command: str, windows: Windows, task: str) -> str:
    """Write the JSON and the Markdown; returns the latter."""
    dtype = windows[WHOLE][-1]["dtype"]
    text = "\n\n".join(
        [
            "# Ablation: what each part of [speed] gives",
            machine_lines(machine, store.get("peak") or {}, [command]),
            f"{TASKS[task].says}, {dtype}{SETTINGS.get(task, '')}. Ratios: median of the rounds "
            "(lowest to highest). The shares do not add up: a part off slows what others sped up.",
            table(windows) + "\n",
        ]
    )
    store.content |= {"command": command, "machine": dict(machine)}
    store.write()
    store.path.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--task", choices=TASKS, default=TASK, help=f"by default {TASK}")
    add_options(parser, "ablation")
    options = parser.parse_args()
    task = options.task
    parts = options.parts.split(",") if options.parts else parts_of(task)
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    name = "ablation" if task == TASK else f"ablation_{task}"
    store, machine = open_store(options.out, name, options.fresh)
    dtype = machine["fingerprint"]["fast_dtype"]

    def start(name: str) -> Child:
        config = make_config(task, "openloop", dtype, overrides=overrides_of(name))
        return start_child("openloop", TASKS[task].work, config)

    names = [WHOLE, *(f"without {part}" for part in parts), PLAIN]
    windows = alternate(store, task, names, options.rounds, options.seconds, start)
    command = " ".join(["python benchmarks/ablation.py", *sys.argv[1:]])
    print("\n" + save(store, machine, command, windows, task))
    return 0


if __name__ == "__main__":
    sys.exit(main())
