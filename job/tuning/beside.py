"""A bag of n-grams beside an encoder that has time for a part of its rows only: it reads all."""

from dataclasses import dataclass

import torch

from configs.read import parse_config
from configs.schema import Config
from data.prepare import Data
from engine.memory import room_of
from job.training.bag import check_beside
from job.training.needs import measure_bag

SHARE = 0.2  # of the time, at most
ROOM = 0.5  # of the memory that is free, at most


@dataclass(frozen=True)
class Beside:
    """The recipe with its bag, and the seconds that fitting it takes."""

    config: Config
    seconds: float


def put_beside(config: Config, pool: Data, seconds: float) -> Beside | None:
    """The recipe with a bag of n-grams beside its encoder, fitted on all training rows in a part of
    these seconds; None where it has one, cannot have one, or time or memory are too short for it.
    Validation rows weigh the two, so that it does not count where it does not help."""
    if config.bag is not None:
        return None
    try:
        joined = parse_config(config.model_dump(exclude_none=True) | {"bag": {}})
        check_beside(joined, pool)
    except ValueError:  # a bag stands beside an encoder, and counts classes up to a hundred
        return None
    needs = measure_bag(joined, pool, len(pool.label_names))
    assert needs is not None
    if needs.seconds > SHARE * seconds or needs.bytes > ROOM * room_of(torch.device("cpu"), 1):
        return None
    return Beside(joined, needs.seconds)
