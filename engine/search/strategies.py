"""Search strategies, one per file: each proposes the next trials from the evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base import plugins
from engine.base.errors import DjsbError
from engine.records.proposal import Origin, Proposal
from engine.search.contract import Proposer
from engine.search.grid import Paper
from engine.search.mixtures import Mixtures
from engine.search.race import Race
from engine.settings.search import STRATEGIES
from engine.settings.study import Study
from engine.study.opened import OpenStudy

BUILT_IN: dict[str, Callable[[str], Proposer]] = dict(zip(STRATEGIES, (Race, Paper, Mixtures), strict=True))
BUILT_IN["paper"] = Paper  # as djsb propose names the grid


def proposer(study: Study, stage: str) -> Proposer:
    """Who asks for the trials of a stage."""
    return named(study.search.strategy, stage)


def named(name: str, stage: str) -> Proposer:
    """The strategy of that name at a stage. Screening and confirmation are the same in every strategy.

    Raises: PluginError for one that is neither built in nor installed.
    """
    if stage in ("screen", "confirm"):
        return Paper(stage)
    if name in BUILT_IN:
        return BUILT_IN[name](stage)
    given = plugins.plugin(plugins.PROPOSERS, name)
    if given is None:
        raise plugins.PluginError(f"search.strategy: {plugins.missing(plugins.PROPOSERS, name, STRATEGIES)}")
    make = plugins.loaded(given, fault)
    return Plugged(stage, given, make)


def fault(given: Any) -> str | None:
    """Why what a plug-in gives is no strategy, or None."""
    return None if callable(given) else "cannot be called with the name of a stage"


@dataclass(frozen=True)
class Plugged:
    """A plug-in's strategy. make: gives what proposes at a stage."""

    stage: str
    plugin: plugins.Plugin
    make: Callable[[str], Proposer]

    @property
    def origin(self) -> Origin:
        """The plug-in's name, whatever it says itself."""
        return self.plugin.name

    def propose(self, study: OpenStudy, n: int | None = None) -> Sequence[Proposal]:
        """What it asks for, in its name. Raises: PluginError where its code fails, or asks for another stage."""
        try:
            asked = list(self.make(self.stage).propose(study, n))
        except DjsbError:
            raise
        except Exception as error:  # a border: its code may raise anything
            raise plugins.failed(self.plugin, f"failed at stage {self.stage}", error) from error
        for one in asked:
            if not isinstance(one, Proposal) or one.stage != self.stage:
                raise plugins.PluginError(
                    f"plug-in {self.plugin} asked for {str(one)[:80]!r}, which is no proposal of stage {self.stage}"
                )
        return [one.model_copy(update={"origin": self.origin}) for one in asked][:n]
