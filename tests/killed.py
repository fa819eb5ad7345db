"""A process that ends in the middle of a run, as by a kill."""

import os
from collections.abc import Callable, Iterator
from types import ModuleType


def kill_after_save(number: int, start: Callable[[], object]) -> None:
    """`start` a run in a forked process that ends, with no word, once it has saved so often."""
    import job.fit

    if (pid := os.fork()) == 0:
        save, left = job.fit.save_checkpoint, iter(range(number - 1, -1, -1))

        def save_and_end(*words, **named):
            save(*words, **named)
            if next(left) == 0:
                os._exit(0)

        job.fit.save_checkpoint = save_and_end
        start()
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def kill_between(module: ModuleType, name: str, number: int, start: Callable[[], object]) -> None:
    """`start` a run in a forked process that ends, with no word, once the generators that the
    module's function `name` makes have given so much and are asked for more."""
    if (pid := os.fork()) == 0:
        make, left = getattr(module, name), iter(range(number, -1, -1))

        def give_and_end(*words, **named) -> Iterator[object]:
            for one in make(*words, **named):
                if next(left) == 0:
                    os._exit(0)
                yield one

        setattr(module, name, give_and_end)
        start()
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
