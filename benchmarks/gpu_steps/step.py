"""One step in a process of its own.

python -m gpu_steps.step NAME '{"size": ..., "scratch": ..., "out": ..., ...}'
"""

import importlib
import json
import sys
import time
import traceback
from pathlib import Path

import torch

from gpu_steps.context import Context, Failed, Skipped


def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    context = Context(
        size=arguments["size"], scratch=Path(arguments["scratch"]), out=Path(arguments["out"]),
        result=Path(arguments["result"]), deadline=time.monotonic() + arguments["seconds"],
        before=json.loads(Path(arguments["before"]).read_text(encoding="utf-8")),
    )  # fmt: skip
    figures: dict = {}
    try:
        if name != "environment" and context.device == "cuda" and not torch.cuda.is_available():
            raise Skipped("torch sees no CUDA device; --dry walks the steps on the CPU")
        importlib.import_module(f"gpu_steps.{name}").run(context, figures)
        context.keep(figures, "ok")
    except Skipped as skipped:
        context.keep(figures, "skipped", str(skipped))
    except Failed as failed:
        context.keep(figures, "failed", str(failed))
    except Exception as error:
        traceback.print_exc()
        context.keep(figures, "failed", f"{type(error).__name__}: {str(error).strip()[:300]}")


if __name__ == "__main__":
    main()
