"""What a recording may hold: a recording may come from anywhere, so every value is checked before a screen sees it."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, NotRequired, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, TypeAdapter, with_config
from typing_extensions import TypedDict

from app.text.printable import printable
from engine.base.errors import DjsbError
from engine.base.ids import ID
from engine.journal.jobs import State
from engine.records.pool import BUCKETS

LONGEST = 20_000  # characters of a text; the recorder cuts what is longer
LARGEST = 1e15  # of any number


def _plain(text: str) -> str:
    """No terminal escape gets past here, whatever a screen does with the text."""
    return text if text.isprintable() else printable(text)


Str = Annotated[str, Field(max_length=LONGEST), AfterValidator(_plain)]
Id = Annotated[str, Field(pattern=rf"^{ID.pattern}$")]  # a file may be named by it
Float = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Int = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(gt=0, le=LARGEST)]
Verdict = Literal["helps", "hurts", "unclear", "degenerate"]
STRICT = ConfigDict(strict=True, extra="ignore")


@with_config(STRICT)
class Trial(TypedDict):
    """A row of the table of trials."""

    id: Id
    label: Str
    kind: Str
    pool: Id
    seed: Int
    stage: Str
    state: Str
    samples: Int
    horizon: Count
    seconds: Float | None
    device: Str | None
    attempts: Int
    error: Str | None
    started: Str | None
    finished: Str | None


@with_config(STRICT)
class Running(TypedDict):
    """A trial that runs, with the course of its loss."""

    id: Id
    device: Str
    seed: Int
    samples: Int
    resumed: Int
    label: Str
    kind: Str
    started: Str | None
    estimate: Float | None
    seconds: Float | None
    loss: list[Float]
    step: Int
    progress: Float
    usage: NotRequired[dict[Str, Float]]


@with_config(STRICT)
class Decision(TypedDict):
    """Who decided what, and why."""

    id: Int
    proposal: Id
    verdict: Str
    who: Str
    why: Str
    at: Str
    kind: Str | None
    stage: Str | None
    origin: Str | None


@with_config(STRICT)
class Event(TypedDict):
    """A line of the log."""

    id: Int
    level: Str
    kind: Str
    subject: Str | None
    text: Str
    at: Str


@with_config(STRICT)
class Place(TypedDict):
    """A row of the leaderboard."""

    pool: Id
    op: Str | None
    statistic: Str | None
    bucket: Str | None
    label: Str
    kind: Str
    size: Int
    share: Float
    change: Float | None
    std: Float | None
    ci_low: Float | None
    ci_high: Float | None
    seeds: Int
    metrics: dict[Str, Float | None]
    verdict: Verdict
    p_best: Float | None
    dropped: Str | None
    skipped: list[Str]
    p: NotRequired[Float | None]
    q: NotRequired[Float | None]
    shrunk: NotRequired[Float | None]
    values: NotRequired[dict[Str, tuple[Float, Float]]]
    bound: NotRequired[Float | None]


class Scaled(Place):
    """A row of repetition against lower layers."""

    samples: Int
    repetition: Int


class Recipe(Scaled):
    """The confirmed recipe."""

    kept: Int
    rows: Int


@with_config(STRICT)
class Sentence(TypedDict):
    """One statement on a stage."""

    text: Str
    cites: list[Str]
    by: Str


@with_config(STRICT)
class Matrix(TypedDict):
    """Correlations in cluster order."""

    names: list[Str]
    r: list[list[Float | None]]
    order: Annotated[list[Str], Field(min_length=1)]
    clusters: dict[Str, Int]
    linkage: list[list[Float]]


def _fits(m: Matrix) -> Matrix:
    n = len(m["names"])
    if len(m["r"]) != n or any(len(row) != n for row in m["r"]):
        raise ValueError("a matrix that is not square")
    if not set(m["order"]) <= set(m["names"]) & set(m["clusters"]):
        raise ValueError("a matrix whose order has other names")
    return m


Correlations = Annotated[Matrix, AfterValidator(_fits)]


@with_config(STRICT)
class Against(TypedDict):
    """A cycle's checkpoints against the first cycle's."""

    change: Float | None
    ci_low: Float | None
    ci_high: Float | None
    seeds: Int
    verdict: Verdict
    bound: NotRequired[Float | None]


@with_config(STRICT)
class Cycle(TypedDict):
    """A link of the lineage."""

    cycle: Int
    recipe: Recipe | None
    unconfirmed: Str | None
    against_first: Against | None


@with_config(STRICT)
class Side(TypedDict):
    """A row before or after."""

    text: Str | None
    images: list[Str | None]


@with_config(STRICT)
class Example(TypedDict):
    """A rewritten row."""

    row: Int
    before: Side
    after: Side


@with_config(STRICT)
class Rewritten(TypedDict):
    """What mappers did."""

    mappers: list[Str]
    rows: Int
    changed: Int
    kept: dict[Str, Int]
    examples: list[Example]


@with_config(STRICT)
class Tried(TypedDict):
    """A mixture that ran."""

    pool: Id
    weights: list[Float]
    change: Float
    expected: Float


@with_config(STRICT)
class Surface(TypedDict):
    """What a regression on mixtures expects."""

    names: list[Str]
    rank: Float | None
    tried: list[Tried]
    across: list[Annotated[int, Field(ge=0, le=64)]]
    steps: list[Float]
    grid: list[list[Float | None]]


@with_config(STRICT)
class Results(TypedDict):
    """Stored results of the stages."""

    recipe: Recipe | None
    unconfirmed: Str | None
    statistics: Correlations | None
    metrics: Correlations | None
    scale: list[Scaled] | None
    lineage: list[Cycle]
    rewritten: NotRequired[list[Rewritten]]
    mixtures: NotRequired[Surface | None]


@with_config(STRICT)
class Job(TypedDict):
    """A job of a pipeline."""

    variant: Int
    iteration: Int
    seed: Int
    pipeline: Str
    place: Int
    label: Str
    phase: Str
    component: Str
    state: State
    reused: Int
    seconds: Float | None
    started: Str | None
    error: Str | None


@with_config(STRICT)
class Variant(TypedDict):
    """A variant of a sweep."""

    run: Str
    variant: Int
    params: Str
    state: Str
    objective: Float | None
    steps: Str
    note: Str | None
    at: Str


@with_config(STRICT)
class RankedPools(TypedDict):
    """What a job ranked, a line each pool."""

    lines: list[Str]
    notes: list[Str]


@with_config(STRICT)
class Pipeline(TypedDict):
    """A run of `djsb run`, with its jobs and variants. pools: recordings of before have none."""

    run: Str
    source: Str
    project: Str
    experiment: Str
    config: Str
    state: Str
    note: Str | None
    at: Str
    ended: Str | None
    folder: Str
    jobs: list[Job]
    sweep: list[Variant]
    pools: NotRequired[list[RankedPools]]


def _bounded(value: Any) -> Any:
    """JSON whose texts are plain and whose numbers are within bounds."""
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, list):
        return [_bounded(v) for v in value]
    if isinstance(value, dict):
        return {_plain(k): _bounded(v) for k, v in value.items()}
    if isinstance(value, int | float) and not -LARGEST <= value <= LARGEST:
        raise ValueError("a number out of bounds")
    return value


def _content(content: dict[str, Any]) -> dict[str, Any]:
    """A proposal's content: what the engine itself takes for a proposal, and the gate's notes."""
    from engine.proposals.kinds.registry import read_proposal  # NumPy: the UI starts without it

    content = _bounded(content)
    gate, limit = content.get("gate", ""), content.get("limit")
    if not (isinstance(gate, str) and isinstance(limit, int | float | None)):
        raise ValueError("invalid notes of the gate")  # noqa: TRY004 (pydantic takes a ValueError)
    try:
        known = read_proposal(content)
    except DjsbError as error:
        raise ValueError(str(error)) from error
    return {**known.model_dump(mode="json"), "gate": gate, "limit": limit}


@with_config(STRICT)
class Proposed(TypedDict):
    """A proposal as it is stored."""

    id: Id
    setup: Str
    origin: Str
    kind: Str
    stage: Str
    content: Annotated[dict[Str, JsonValue], AfterValidator(_content)]
    status: Str
    cost: Float | None
    at: Str


def _stage(row: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(row.get("stage"), str) or not all(isinstance(v, int) for k, v in row.items() if k != "stage"):
        raise ValueError("a stage that is none")
    return row


def _buckets(names: list[str]) -> list[str]:
    if names and tuple(names) not in BUCKETS.values():
        raise ValueError("buckets that are none")
    return names


T = TypeVar("T")


@with_config(STRICT)
class Change(TypedDict, Generic[T]):
    """How a list of rows became the next: places in the old list that go, then rows with their places in the new."""

    gone: list[Int]
    put: list[tuple[Int, T]]


@with_config(STRICT)
class Rows(TypedDict, total=False):
    """Changes of the long lists."""

    trials: Change[Trial]
    proposals: Change[Proposed]
    decisions: Change[Decision]
    events: Change[Event]
    board: Change[Place]


@with_config(STRICT)
class Whole(TypedDict, total=False):
    """Fields of a snapshot, each as a whole."""

    name: Str
    setup: Str
    engine: Int | None
    state: Str
    stage: Str
    stages: list[Annotated[dict[Str, Str | Int], AfterValidator(_stage)]]
    spent: Float
    limit: Float
    rate: Annotated[float, Field(ge=1e-9, le=LARGEST)] | None
    burn: list[tuple[Float, Float]]
    running: list[Running]
    waiting: Int
    trials: list[Trial]
    proposals: list[Proposed]
    decisions: list[Decision]
    events: list[Event]
    insights: dict[Str, list[Sentence]]
    results: Results | Annotated[dict[Str, JsonValue], Field(max_length=0)]
    answer: list[Str]
    board: list[Place] | None
    buckets: Annotated[list[Str], AfterValidator(_buckets)]
    pipelines: list[Pipeline]
    problem: Str


@with_config(STRICT)
class Frame(TypedDict):
    """One line. t: seconds since the recording began. key: True where all fields are there as a whole."""

    t: Annotated[float, Field(ge=0, le=1e9)]
    key: NotRequired[bool]
    set: NotRequired[Whole]
    rows: NotRequired[Rows]


class Header(TypedDict):
    """The first line."""

    djsb: Literal["recording"]
    version: int
    made: Str
    by: Str
    study: Str


FRAME: TypeAdapter[Frame] = TypeAdapter(Frame)
HEADER: TypeAdapter[Header] = TypeAdapter(Header)
