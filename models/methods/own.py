"""A method of a user's own: [method] names a class in a file of theirs, and gives its arguments.

    theirs   ASKED: a subclass of Method, as every one here
    ours     OURS: what PEFT would make of it is not known, so it is stored in openloop's layout,
             with a copy of the file that ran; a class that answers one of these is refused

What it puts in is held to the contract before anything trains: the model that was there is below
the `base` of Added modules, bit for bit, and all that is new belongs to one of them.
"""

import inspect
import zlib
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from models.code import (
    METHOD_CODE,
    check_arguments,
    code_file,
    code_that_ran,
    load_class,
    telling_place,
)
from models.methods.method import Method, added_modules, plain_state
from models.methods.own_files import read_own, write_own
from models.names import is_below, named_seed

ASKED = (
    "identity", "in_front", "check", "positions", "inject", "also_trains", "start", "rates",
)  # fmt: skip
OURS = ("code", "peft", "drops_types", "beside_biases", "write", "read", "as_written")


@dataclass(frozen=True)
class OwnMethod(Method):
    """`kind` is "my_file.py:MyMethod", `args` its arguments by name. The file is run when the
    method is first put in: who calls that has asked whether code is allowed."""

    beside_biases: ClassVar[bool] = True
    small: ClassVar[dict[str, dict[str, Any]]] = {"own": {"kind": "examples/own_method.py:IA3"}}

    kind: str = "method"  # type: ignore[misc]  # of the class the row, of one of them its file
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str:
        return self.kind

    def check(self) -> None:
        if code_file(self.kind) is None:
            raise ValueError(f"method.kind is {self.kind!r}; expected 'my_file.py:MyMethod'")

    @cached_property
    def own(self) -> Method:
        """The user's method. Raises ValueError for a class or arguments that do not go together."""
        method = load_class("method.kind", self.kind, Method)
        takes = dict(inspect.signature(method).parameters)
        check_arguments(method.__name__, takes, self.args, "[method.args]", {})
        with self._in_words("__init__"):
            made: Method = method(**self.args)
        theirs = [kind for kind in method.__mro__ if not kind.__module__.startswith("models.")]
        if idle := [name for name in OURS if any(name in vars(kind) for kind in theirs)]:
            raise ValueError(
                f"method.kind {self.kind!r}: {method.__name__} defines {', '.join(idle)}, which a "
                "class in a file of its own is not asked: what it puts in is stored in openloop's "
                "layout; remove it"
            )
        return made

    def _in_words(self, what: str) -> AbstractContextManager[None]:
        """What the user's code raises becomes a ValueError with the place."""
        file = code_file(self.kind)
        assert file is not None
        return telling_place(f"method.kind {self.kind!r}: {what} failed", file)

    @property
    def identity(self) -> bool:  # type: ignore[override]  # of the user's class
        return bool(self.own.identity)

    @property
    def in_front(self) -> int:
        with self._in_words("in_front"):
            return int(self.own.in_front)

    def positions(self, model: nn.Module) -> int:
        with self._in_words("positions"):
            return int(self.own.positions(model))

    def inject(self, model: nn.Module, seed: int, exclude: Collection[str] = ()) -> list[str]:
        own, before = self.own, checksums(model)
        with self._in_words("inject"), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(named_seed(seed, "method"))
            own.check()
            notes = own.inject(model, seed, exclude)
        self._check_model("inject", model, before, exclude)
        if not isinstance(notes, list):
            raise ValueError(
                f"method.kind {self.kind!r}: inject returned a {type(notes).__name__}; expected a "
                "list of lines to show before step 1, such as []"
            )
        return [str(note) for note in notes]

    def start(self, model: nn.Module, tokenizer: Any) -> None:
        if type(self.own).start is Method.start:
            return
        before = checksums(model)
        with self._in_words("start"), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(named_seed(0, "start"))  # inject draws from a seed
            self.own.start(model, tokenizer)
        self._check_model("start", model, before, ())

    def _check_model(
        self, what: str, model: nn.Module, before: dict[str, int], exclude: Collection[str]
    ) -> None:
        """Raises ValueError where what was put in would train, be saved or be merged wrongly."""
        after, added = checksums(model), added_modules(model)
        lost = [name for name in before if name not in after]
        loose = [name for name in after if name not in before]
        changed = [name for name in before if after.get(name, before[name]) != before[name]]
        head = [name for name in added if is_below(name, exclude)]
        if not added and not self.also_trains(model):
            wrong = "put no Added module in, and also_trains names nothing: it would change nothing"
        elif lost:
            wrong = (
                f"took {lost[0]} away: a module that stands for another is an Added and keeps "
                "that one as self.base"
            )
        elif loose:
            wrong = (
                f"put {loose[0]} outside of an Added module, where it would neither train nor be "
                "saved: make it a parameter of one"
            )
        elif changed:
            wrong = f"changed the values of {changed[0]}: a method adds beside the weights"
        elif head:
            wrong = f"put {head[0]} where `exclude` says that nothing may be put"
        else:
            return
        raise ValueError(f"method.kind {self.kind!r}: {what} {wrong}")

    def also_trains(self, model: nn.Module) -> list[str]:
        with self._in_words("also_trains"):
            names = list(self.own.also_trains(model))
            for name in names:
                model.get_parameter(name)
        return names

    def rates(self, model: nn.Module) -> dict[str, float]:
        with self._in_words("rates"):
            factors = dict(self.own.rates(model))
            for name in factors:
                model.get_parameter(name)
        return factors

    def write(self, model: nn.Module, base: str | None, revision: str | None, folder: Path) -> None:
        write_own(model, folder)
        (folder / METHOD_CODE).write_bytes(code_that_ran(type(self.own)))

    def read(self, model: nn.Module, folder: Path) -> set[str]:
        return read_own(model, folder)

    def as_written(self, folder: Path) -> "OwnMethod":
        return replace(self, kind=f"{folder / METHOD_CODE}:{self.kind.rpartition(':')[2]}")


def checksums(model: nn.Module) -> dict[str, int]:
    """A checksum of each tensor of the model without what a method put in."""
    state = plain_state(model).items()
    flat = {name: tensor.detach().cpu().contiguous().flatten() for name, tensor in state}
    return {n: zlib.crc32(t.view(torch.uint8).numpy().data) for n, t in flat.items()}
