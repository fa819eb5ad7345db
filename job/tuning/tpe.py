"""optuna's tree of Parzen estimators (Bergstra et al. 2011) as a sampler of places. This file alone
knows optuna, and is imported only with --sampler tpe."""

from collections.abc import Sequence

import optuna

from job.tuning.space import Dimension, Place, Value

OWN = "the recipe's own"  # as a choice beside those of a setting


def suggest(
    space: Sequence[Dimension],
    results: Sequence[tuple[Place, tuple[float, float] | None]],
    seed: int, number: int, again: int,
) -> Place:  # fmt: skip
    """The place of trial `number`, from those before it with what they came to (None: they failed),
    the smaller the better. A function of its arguments alone: a study is made anew each time, so
    that a search that goes on draws what it would have drawn."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + number * 101 + again) % 2**32)
    study = optuna.create_study(sampler=sampler)
    distributions = {dimension.key: distribution(dimension) for dimension in space}
    for place, score in results:
        if not place and score is not None:  # the recipe, whose place is nowhere but in choices
            place = {dimension.key: None for dimension in space if dimension.choices}
        if score is None or any(
            place.get(dimension.key) is None and not dimension.choices for dimension in space
        ):
            continue
        trial = optuna.trial.create_trial(
            params={d.key: OWN if place[d.key] is None else place[d.key] for d in space},
            distributions=distributions, value=score[0],
        )  # fmt: skip
        study.add_trial(trial)
    params = study.ask(distributions).params
    return {key: read(value) for key, value in params.items()}


def distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    """Where a setting's place is drawn from: all ranges are 0 to 1, whatever their numbers are."""
    if dimension.choices:
        return optuna.distributions.CategoricalDistribution([OWN, *dimension.choices])
    return optuna.distributions.FloatDistribution(0.0, 1.0)


def read(value: Value) -> Value:
    """A place's value from what optuna has."""
    return None if value == OWN else value
