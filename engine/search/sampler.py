"""Optuna's sampler over choices, told what the study's own database knows.

Its storage is memory only: everything is told anew each time, so a resumed run asks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Choice = dict[str, Any]
ASKS = 50  # tries of each sampler to find a choice that is possible and new


def ask(
    space: Mapping[str, Sequence[Any]],
    told: Sequence[tuple[Choice, float | None]],
    possible: Callable[[Choice], bool],
    seed: int,
) -> Choice | None:
    """The next choice by TPE (at random once TPE finds none), possible and not told before; None when no such is found.

    space: parameter → its options. told: earlier choices, best known order kept, with their value
    (higher is better), or None where there is none yet or will never be.
    """
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options: dict[str, BaseDistribution] = {name: CategoricalDistribution(tuple(o)) for name, o in space.items()}
    sampler = optuna.samplers.TPESampler(seed=seed + len(told), n_startup_trials=min(4, len(told)), constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for choice, value in told:
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        study.add_trial(create_trial(state=state, params=choice, distributions=options, value=value))
    before = [choice for choice, _ in told]
    for tries in range(2 * ASKS):
        if tries == ASKS:  # what is left are corners that TPE sees no reason for
            study.sampler = optuna.samplers.RandomSampler(seed=seed + len(told))
        trial = study.ask(options)
        if trial.params not in before and possible(trial.params):
            return dict(trial.params)
        study.tell(trial, state=TrialState.FAIL)
    return None
