"""Optuna's sampler over choices, given what the study's own database knows.

Its storage is memory only: everything is given anew each time, so a resumed run asks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Choice = dict[str, Any]
ASKS = 50  # tries of each sampler to find a choice that is possible and new


def ask(
    space: Mapping[str, Sequence[Any]],
    tried: Sequence[tuple[Choice, float | None]],
    possible: Callable[[Choice], bool],
    seed: int,
) -> Choice | None:
    """The next choice by TPE (at random once TPE finds none), possible and not tried before; None when there is none.

    space: parameter → its options. tried: earlier choices, best known order kept, with their value
    (higher is better), or None where there is none yet or will never be.
    """
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options: dict[str, BaseDistribution] = {name: CategoricalDistribution(tuple(o)) for name, o in space.items()}
    sampler = optuna.samplers.TPESampler(
        seed=seed + len(tried), n_startup_trials=min(4, len(tried)), constant_liar=True
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for choice, value in tried:
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        study.add_trial(create_trial(state=state, params=choice, distributions=options, value=value))
    before = [choice for choice, _ in tried]
    for tries in range(2 * ASKS):
        if tries == ASKS:  # TPE avoids the choices that are left: sample at random
            study.sampler = optuna.samplers.RandomSampler(seed=seed + len(tried))
        trial = study.ask(options)
        if trial.params not in before and possible(trial.params):
            return dict(trial.params)
        study.tell(trial, state=TrialState.FAIL)
    return None
