"""The study's current answer, derived from what ran. Status, ranking, UI, report and the agent begin with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from engine.base.amounts import budget_text, format_seconds
from engine.evidence.all_data import KIND, against_all
from engine.evidence.guards import judged, told, vetoed
from engine.evidence.ranking import RECIPES, Ranked, rank
from engine.evidence.recipe import confirmed, standing_recipe
from engine.evidence.sentences import change_text, effect_text
from engine.journal import costs, cycles, events, proposals, results, trials
from engine.records.answer import Answer
from engine.records.cycle import CycleStart
from engine.records.leaderboard import Change, CycleRecipe
from engine.records.overlap import warnings
from engine.records.proposal import StoredProposal
from engine.records.trial import FRESH, Trial
from engine.settings.study import STAGES
from engine.study.lock import engine_pid
from engine.study.setting import shown
from engine.study.view import StudyView

NAMED = 3  # candidates that the answer names
SPARE = 1.15  # times what trials took so far: what a budget is asked for
LEFT = 0.15  # of a budget: what the stages before leave to the confirmation


def answer(view: StudyView) -> Answer:
    """The study's current answer with its reasons, and what would get one."""
    view, of_setting = shown(view)
    told = _answer(view)
    overlaps = results.OVERLAP.get(view.store, view.root) or ()
    told = replace(told, reasons=(*told.reasons, *warnings(overlaps)))
    return replace(told, reasons=(of_setting, *told.reasons)) if of_setting else told


def _answer(view: StudyView) -> Answer:
    unconfirmed = results.UNCONFIRMED.get(view.store, view.setup)
    recipe = standing_recipe(view)
    if recipe is not None:
        return _recipe(view, recipe, unconfirmed)
    if view.study.task is None:
        text = "No answer: the study has no task, so nothing is trained."
        return Answer("open", text, remedy="Set task in study.yaml (docs/guides/tasks.md), then run djsb auto.")
    return replace(_Course(view).answer(), unconfirmed=unconfirmed)


def _recipe(view: StudyView, recipe: CycleRecipe, unconfirmed: str | None) -> Answer:
    """A recipe is confirmed: against a random sample of its size, and against all rows."""
    setup = next(c.setup for c in _chain(view) if c.cycle == recipe.cycle)
    found = against_all(view, setup, {recipe.pool: recipe.samples}).get(recipe.pool)
    found = found if found and found.change is not None else None
    of_cycle = f" of cycle {recipe.cycle}" if view.cycle > 1 else ""
    own = Change(recipe.change, recipe.ci_low, recipe.ci_high, recipe.seeds, recipe.verdict, recipe.bound)
    text = f"Recipe{of_cycle}: {recipe.label}. Against a random sample of the same size: {change_text(own)}; "
    text += f"against all your data: {change_text(found)}." if found else "it was not compared with all your data."
    seeds = f"{recipe.seeds} fresh seed{'s' * (recipe.seeds != 1)}"
    reasons = [
        _against_all(view, setup, found),
        f"Measured on {seeds}, which took no part in choosing it{_judged(view)}. It keeps {recipe.kept:,} of "
        f"{recipe.rows:,} rows.",
    ]
    if recipe.bound is not None:
        sure = f"{100 * view.study.search.confidence:g} %"
        reasons.append(f"“At least” is a one-sided bound at {sure}, by the test that says that it helps.")
    elif recipe.ci_low is not None and recipe.ci_low <= 0 and recipe.verdict == "helps":
        reasons.append("That it helps is a one-sided claim; its two-sided interval includes zero.")
    reasons += [f"Guard: {told(guard)}." for guard in recipe.guards]
    if recipe.cycle < view.cycle:
        reasons.append(f"Cycle {view.cycle} has confirmed none yet" + (f" ({unconfirmed})." if unconfirmed else "."))
    return Answer("recipe", text, tuple(reasons), "", recipe, found, unconfirmed, fresh=True)


def _judged(view: StudyView) -> str:
    """On which items of the evaluation a confirmation is judged, in words."""
    asked = view.study.evaluation.held_back
    if not asked:
        return ""
    if not view.held_back:
        return f", on the same evaluation items: task {view.study.task} judges by itself, so none is held back"
    return f", and on the {asked:.0%} of the evaluation items that were held back from the search"


def _chain(view: StudyView) -> Sequence[CycleStart]:
    return cycles.chain(view.store, view.setup)


def _against_all(view: StudyView, setup: str, found: Change | None) -> str:
    """Whether it beats all rows, in words."""
    if found is None:
        if not view.study.confirm.all_data:
            return "All rows were not trained on: confirm.all_data is false."
        ran = [t for t in trials.of_setup(view.store, setup) if t.kind == KIND]
        if ran:
            return "All rows at as many trained samples have no result yet."
        return "Its confirmation ran without the arm of all rows at as many trained samples."
    if found.ci_low is None or found.verdict == "unclear":
        why = "one seed gives no interval" if found.ci_low is None else "the interval includes zero"
        return f"It is not shown to beat all your data at as many trained samples: {why}."
    if found.verdict == "helps":
        return "It beats all your data at as many trained samples."
    return "It does not beat all your data: at as many trained samples all rows do better."


@dataclass(frozen=True)
class _Course:
    """What ran of a study in which no recipe is confirmed."""

    view: StudyView

    @cached_property
    def trials(self) -> list[Trial]:
        return trials.of_setup(self.view.store, self.view.setup)

    @cached_property
    def proposals(self) -> list[StoredProposal]:
        return proposals.of_setup(self.view.store, self.view.setup)

    @cached_property
    def engine(self) -> bool:
        return engine_pid(self.view.state) is not None

    @cached_property
    def ranked(self) -> list[Ranked]:
        return [r for r in rank(self.view, RECIPES) if r.effect.change is not None]

    def count(self, state: str, stage: str | None = None) -> int:
        """Trials in a state."""
        return sum(t.state == state and stage in (None, t.stage) for t in self.trials)

    def answer(self) -> Answer:
        """What can be said so far."""
        if not self.count("COMPLETE"):
            return self._untrained()
        if not self.ranked:
            text = "No answer yet: no pool and its control have both finished, so nothing is compared."
            return Answer("open", text, tuple(self._why(self.stage)), self._go_on())
        if self.asked:
            return self._confirming() if self.missing else self._confirmed()
        if results.RECIPE.at(self.view.store, self.view.setup) is None:
            return self._searching()
        if (self.ranked[0].effect.change or 0.0) <= 0:
            text = "No recipe: in the search no pool did better than a random sample of the same size."
            return Answer("none", text, (self._leader(),), "Other OPs, or larger pools, may tell more.")
        text = "No recipe: nothing was put to the confirmation on fresh seeds."
        return Answer("none", text, (self._leader(),), "djsb auto confirms what leads, where the study still has it.")

    @property
    def stage(self) -> str:
        """The last stage that has trials, else the first."""
        return next((s for s in reversed(STAGES) if any(t.stage == s for t in self.trials)), STAGES[0])

    def _untrained(self) -> Answer:
        """Nothing has finished, so nothing is claimed."""
        failed, running = self.count("FAIL"), self.count("RUNNING")
        text = "No answer yet: no trial has finished, so nothing can be said of any pool."
        if self.engine or not failed:
            return Answer("open", text, tuple(self._why(self.stage)), self._go_on())
        first = min((t for t in self.trials if t.state == "FAIL"), key=lambda t: t.finished or "")
        all_ = "all of them" if not running + self.count("WAITING") else f"{failed} of {len(self.trials)}"
        reason = f"Trials failed ({all_}), the first with: {first.error}."
        return Answer("open", text, (reason,), "Mend the cause; djsb auto then tries them again.")

    def _searching(self) -> Answer:
        """The search has not come to the confirmation."""
        stage, refused = self.stage, self._budget_ended(*STAGES)
        if refused and not self.engine:
            limit = format_seconds(self.view.limit)
            text = f"No answer: nothing was confirmed, because the budget of {limit} ended before the confirmation."
            return Answer("open", text, (self._leader(),), self._larger(self._expected(), False))
        text = f"No answer yet: the search is at stage {stage}, and nothing is confirmed before it ends."
        return Answer("open", text, (self._leader(), *self._why(stage)), self._go_on())

    @cached_property
    def asked(self) -> dict[tuple[str, int, int], str]:
        """(pool, samples, seed) of every trial that the confirmation asks for → its label; all rows aside."""
        left = ("superseded", "edited", "rejected")
        rows = [p for p in self.proposals if p.stage == "confirm" and p.status not in left]
        last = FRESH + self.view.study.confirm.seeds  # the control has more, which nothing waits for
        return {
            (arm.key[0], arm.samples, seed): "the control" if arm.kind == "control" else arm.label
            for p in rows for arm, seed in p.proposal.runs if arm.kind != KIND and seed < last
        }  # fmt: skip

    @cached_property
    def missing(self) -> dict[tuple[str, int, int], str]:
        """Those that have not finished."""
        done = {(t.pool, t.samples, t.seed) for t in self.trials if t.state == "COMPLETE" and t.whole}
        return {key: label for key, label in self.asked.items() if key not in done}

    def _confirming(self) -> Answer:
        """Some trials on fresh seeds are missing, so none of them is read."""
        done = len(self.asked) - len(self.missing)
        lack = ", ".join(list(dict.fromkeys(self.missing.values()))[:NAMED])
        more = "s" * (len(set(self.missing.values())) == 1)
        so_far = f"{done} of {len(self.asked)} trials on fresh seeds have finished; {lack} still lack{more} some."
        if self._budget_ended("confirm") and not self.engine:
            when = "in" if done else "before"
            limit = format_seconds(self.view.limit)
            text = f"No answer: nothing was confirmed, because the budget of {limit} ended {when} the confirmation."
            needed = self._seconds(sum(samples for _, samples, _ in self.missing))
            whole = not self._budget_ended(*STAGES[:-1])
            return Answer("open", text, (self._leader(), so_far), self._larger(needed, whole))
        text = "No answer yet: the confirmation on fresh seeds has not ended."
        return Answer("open", text, (self._leader(), so_far, *self._why("confirm")), self._go_on())

    def _confirmed(self) -> Answer:
        """The confirmation has all its trials."""
        if results.RECIPE.at(self.view.store, self.view.setup) is None:
            text = "No answer yet: the confirmation on fresh seeds has run, and is read at the end of its stage."
            return Answer("open", text, (self._leader(), *self._why("confirm")), self._go_on())
        found = confirmed(self.view)
        every = against_all(self.view, self.view.setup, {r.pool.id: r.samples for r in found})
        text = (
            f"No recipe: on fresh seeds none of {len(found)} candidate{'s' * (len(found) != 1)} is shown to beat a "
            "random sample of the same size."
        )
        remedy = self._more_seeds()
        if vetoes := vetoed(found, judged(self.view)):
            first, guard = vetoes[0]
            text = (
                f"No recipe: {first.label} beats a random sample of the same size ({effect_text(first)}), and a guard "
                f"vetoes it: {told(guard)}."
            )
            remedy = "What buys its mean with this metric is no recipe; evaluation.guards has the bound."
        lines = [
            f"{r.label}: against a random sample of the same size {effect_text(r)}"
            + (f"; against all your data {change_text(every[r.pool.id])}." if r.pool.id in every else ".")
            for r in found[:NAMED]
        ]
        lines += self._fewer_than_planned()
        lines += [f"Measured on fresh seeds{judged_on}."] if (judged_on := _judged(self.view)) else []
        return Answer("none", text, tuple(lines), remedy, fresh=True)

    def _fewer_than_planned(self) -> list[str]:
        """That a designed study confirmed on fewer seeds than were planned, where it did."""
        design, seeds = results.DESIGN.get(self.view.store, self.view.setup), self.view.study.confirm.seeds
        if design is None or seeds >= design.planned:
            return []
        return [f"The budget had room for {seeds} of {design.planned} planned fresh seeds."]

    def _more_seeds(self) -> str:
        """What would tell a smaller effect: of a designed study the budget for twice the seeds."""
        design, seeds = results.DESIGN.get(self.view.store, self.view.setup), self.view.study.confirm.seeds
        if design is None:
            return "More fresh seeds (confirm.seeds) tell smaller effects."
        arms = {(pool, samples) for pool, samples, _ in self.asked}
        every = sum(samples for _, samples in arms) * (len(arms) + 1) / max(1, len(arms))  # with all rows
        least = costs.total(self.view.store) + SPARE * self._seconds(every * (max(design.planned, 2 * seeds) - seeds))
        return f"More fresh seeds tell smaller effects: djsb auto --budget {budget_text(least)}."

    def _leader(self) -> str:
        """What leads the search, and how surely."""
        first = self.ranked[0]
        length = "" if first.share >= 1 else f", {100 * first.share:g} % of the steps"
        return (
            f"{first.label} leads the search ({first.pool.size:,} rows{length}): {effect_text(first)}, "
            f"{first.effect.verdict}."
        )

    def _why(self, stage: str) -> list[str]:
        """What stands between the study and its end."""
        reasons = []
        running, waiting = self.count("RUNNING"), self.count("WAITING")
        if self.engine:
            return [f"The engine runs: {running} trials run and {waiting} wait."]
        if failed := [t for t in self.trials if t.state == "FAIL" and t.stage == stage]:
            reasons.append(f"{len(failed)} trials of stage {stage} failed, the first with: {failed[0].error}.")
        if undecided := [p for p in self.proposals if p.status in proposals.OPEN]:
            reasons.append(f"{len(undecided)} proposals await a decision: djsb review.")
        if self._budget_ended(stage):
            refused = [p.gate for p in self.proposals if p.stage == stage and self._is_refused(p)]
            what = refused[0].removeprefix("budget: ") if refused else "trials wait"
            reasons.append(f"The budget of {format_seconds(self.view.limit)} ended in stage {stage}: {what}.")
        return reasons or ["No engine runs."]

    def _go_on(self) -> str:
        """The next step of a person."""
        if self.engine:
            return ""
        if any(p.status in proposals.OPEN for p in self.proposals):
            return "Decide on them, then djsb auto goes on."
        if self._budget_ended(self.stage):
            return "djsb auto --budget with more device time goes on."
        return "djsb auto goes on."

    def _budget_ended(self, *stages: str) -> bool:
        """True where the budget ended one of these stages, and none of its trials has finished since."""
        for stage in stages:
            if any(p.stage == stage and self._is_refused(p) for p in self.proposals):
                return True
            event = events.last_of(self.view.store, "budget", stage)
            last = max((t.finished or "" for t in self.trials if t.stage == stage), default="")
            waits = any(t.stage == stage and t.state == "WAITING" for t in self.trials)
            if event is not None and waits and event.at >= last:
                return True
        return False

    def _is_refused(self, proposal: StoredProposal) -> bool:
        """True for one that the budget had no room for."""
        return proposal.status == "refused" and proposal.gate.startswith("budget")

    def _seconds(self, samples: float) -> float:
        """Device-seconds of so many trained samples, by what has run."""
        ran = trials.durations(self.view.store, self.view.setup)
        return samples * sum(s for _, s in ran) / max(1, sum(n for n, _ in ran))

    def _expected(self) -> float:
        """Device-seconds of the confirmation of what leads: candidates, their control, all rows."""
        section, first = self.view.study.confirm, self.ranked[0]
        arms = section.candidates + 1 + section.all_data
        return self._seconds(arms * section.seeds * first.samples / max(1e-9, first.share))

    def _larger(self, needed: float, whole: bool) -> str:
        """The budget that gets an answer. whole: the stages before have ended, so that all of what is added is left."""
        least = costs.total(self.view.store) + SPARE * needed
        if design := results.DESIGN.get(self.view.store, self.view.setup):  # which reserves the confirmation
            text = budget_text(max(least, design.least))
            return f"The confirmation takes about {format_seconds(needed)}: djsb auto --budget {text}."
        least = max(least, self.view.limit) if whole else max(least, self.view.limit, SPARE * needed / LEFT)
        return f"The confirmation takes about {format_seconds(needed)}: djsb auto --budget {budget_text(least)}."
