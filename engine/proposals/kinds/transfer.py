"""Kind `transfer`: a recipe on another model, other data or another amount of training."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.base.paths import resolve
from engine.data.catalogue import inside
from engine.evidence.transfer import STAGE, ScalingLaw, TransferRun, scaling_law
from engine.journal import pools, proposals
from engine.proposals.arms import control, kind_of, request
from engine.proposals.kinds.contract import Drafted, FormField, Kind, Refused
from engine.records.experiment import Experiment, Id
from engine.records.pool import MODEL_SCORE
from engine.records.proposal import StoredProposal
from engine.records.trial import FRESH
from engine.study.opened import OpenStudy
from engine.study.variants import elsewhere
from engine.study.view import StudyView


class Transfer(Experiment):
    """A pool against the control on another model, on other data inside the study's folder, or trained for longer.

    checkpoint: the folder of another model, as `model.checkpoint` names one. compute: times the study's epochs
    (Sections 4.4 and 4.5).
    """

    place = 70
    kind: Literal["transfer"]
    pool: Id
    preset: Annotated[str, Field(pattern=r"^[a-z][a-z0-9._-]{0,63}$")] | None = None
    checkpoint: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    dataset: Annotated[str, Field(max_length=300)] | None = None
    compute: Annotated[float, Field(ge=1 / 64, le=64, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _differs(self) -> Transfer:
        if self.preset is None and self.checkpoint is None and self.dataset is None and self.compute == 1:
            raise ValueError("name a preset, a checkpoint, a dataset, or a compute other than 1")
        return self

    @property
    def where(self) -> list[str]:
        """See Experiment."""
        named = {"preset": self.preset, "checkpoint": self.checkpoint, "dataset": self.dataset}
        return [f"{name}: {value}" for name, value in named.items() if value is not None]


class TransferKind(Kind[Transfer]):
    """A recipe elsewhere."""

    schema = Transfer
    form = (
        FormField("pool", "pool"),
        FormField("preset", hint="a larger model"),
        FormField("checkpoint", hint="a folder in the study, or beside its checkpoint"),
        FormField("dataset", hint="a path inside the study"),
        FormField("compute", "number", "times the training"),
    )
    fields = "`pool`; `preset`, `checkpoint`, `dataset` or `compute` (1/64 … 64 times the study's epochs)"
    asks = (
        "a bucket or combination against the control on another model, on other data, or trained for longer "
        "([transfer.md](transfer.md))"
    )
    brief = (
        "a bucket or combination against the control on another model (`preset`, or `checkpoint`: a folder in the "
        "study or beside its own checkpoint), on other data inside the study's folder (`dataset`), or trained for "
        "longer (`compute`)."
    )

    def check(self, opened: OpenStudy, experiment: Transfer) -> None:
        """Data inside the study's folder only, and checkpoints there or beside the study's own."""
        if experiment.dataset is not None:
            inside(opened.folder, experiment.dataset)
        if experiment.checkpoint is not None:
            place_of(opened, experiment.checkpoint)

    def draft(self, opened: OpenStudy, experiment: Transfer) -> Drafted:
        """A recipe and the control on fresh seeds, on another model, dataset or amount of training."""
        stored = pools.get(opened.store, experiment.pool)
        if stored is None or stored.kind not in ("single", "combination"):
            raise Refused(f"pool {experiment.pool} is no bucket or combination of this study; djsb rank names them")
        pool, other = stored.pool, self.where(opened, experiment)
        if any(s.op == MODEL_SCORE for s in pool.slices):
            raise Refused(f"{stored.label} is cut by a model's scores, which only the study of that model has")
        if experiment.dataset is not None:
            pool = replace(pool, size=min(other.pool_size, other.kept(pool)))
        if pool.size < (batch := opened.study.train.batch_size):
            raise Refused(f"{stored.label} keeps {pool.size} rows there, fewer than a batch of {batch}")
        epochs = opened.epochs * experiment.compute
        arms = [
            request(other, control(other, pool.size), "control", "control", epochs),
            request(other, pool, stored.label, kind_of(pool), epochs),
        ]
        return Drafted(STAGE, arms, tuple(FRESH + seed for seed in range(opened.study.confirm.seeds)))

    def where(self, opened: OpenStudy, experiment: Transfer) -> OpenStudy:
        """On the other model or data."""
        return elsewhere(opened, experiment.preset, experiment.dataset, experiment.checkpoint)


def place_of(opened: OpenStudy, checkpoint: str) -> None:
    """Raises: Refused, unless it is a folder in the study's, or in the one where the study's own checkpoint lies."""
    place = resolve(opened.folder, checkpoint)
    own = opened.study.model.checkpoint
    roots = [opened.folder, *([resolve(opened.folder, own).parent] if own else [])]
    if not any(place.is_relative_to(root.resolve()) for root in roots):
        raise Refused(
            f"checkpoint {checkpoint!r:.80} lies elsewhere; give a folder in the study, or beside its model.checkpoint"
        )
    if not place.is_dir():
        raise Refused(f"checkpoint {checkpoint!r:.80} is no folder here")


KINDS = (TransferKind(),)


def approved(view: StudyView) -> list[StoredProposal]:
    """The approved proposals of the kind in the study's cycles, oldest first."""
    return proposals.approved_of_kind(view.store, view.root, "transfer")


def scaling(view: StudyView) -> ScalingLaw | None:
    """All transfers with their changes and lines; None where there are none."""
    return scaling_law(view, [_transfer(view, row) for row in approved(view)])


def _transfer(view: StudyView, row: StoredProposal) -> TransferRun:
    proposal = row.proposal
    assert proposal.suggestion is not None and isinstance(proposal.suggestion.experiment, Transfer)
    experiment, control = proposal.suggestion.experiment, proposal.pools[0]
    model = view.study.model
    checkpoint = experiment.checkpoint or (None if experiment.preset else model.checkpoint)
    return TransferRun(
        row.id, experiment.pool, proposal.pools[-1].label, experiment.preset or model.preset, checkpoint,
        experiment.dataset or view.study.dataset.places, experiment.compute, control.samples, control.to_pool().size,
    )  # fmt: skip
