"""Messages of workers: one JSON line each, read into frozen values. Nothing that a worker says is trusted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from engine.base.lines import LONGEST, read_object
from engine.base.secrets import redact
from engine.base.thinning import NAME, NAMES
from engine.journal.results import Calibration

SHOWN = 80  # characters of a bad message in its error
ERROR = 2000  # characters of an error
METRICS = 1000  # of a trial
FACTS = 32  # of how a trial is trained

Id = Annotated[str, Field(min_length=1, max_length=NAME)]
Values = Annotated[dict[Id, float], Field(max_length=NAMES)]
Scores = Annotated[dict[Id, float], Field(max_length=METRICS)]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Fact = bool | int | Annotated[str, Field(max_length=NAME)] | None
Size = Annotated[str, Field(pattern=r"^[1-9]\d{0,5}$")]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Measure = Literal["cpu", "memory", "written", "gpu", "gpu_memory", "gpu_power", "gpu_temperature"]


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Ready(_Message):
    """It waits for jobs."""

    event: Literal["ready"] = "ready"


class Beat(_Message):
    """It is alive."""

    event: Literal["beat"] = "beat"


class Unfit(_Message):
    """Its device cannot train; it has ended."""

    event: Literal["unfit"] = "unfit"
    why: Annotated[str, Field(max_length=ERROR)]


class Note(_Message):
    """A line for the log."""

    event: Literal["note"] = "note"
    text: Annotated[str, Field(max_length=ERROR)]


class Point(_Message):
    """Values of a trial at an optimiser step."""

    event: Literal["curve"] = "curve"
    trial: Id
    step: int
    values: Values


class Described(_Message):
    """How a trial is trained."""

    event: Literal["procedure"] = "procedure"
    trial: Id
    facts: Annotated[dict[Id, Fact], Field(max_length=FACTS)]


class Usage(_Message):
    """What the worker has taken of the machine in so many seconds, by what `engine/records/usage.py` names."""

    event: Literal["usage"] = "usage"
    seconds: Annotated[float, Field(gt=0, le=1e9)]
    values: dict[Measure, Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]]


class Timing(_Message):
    """What a calibration came to; see `Calibration`. None: it was not asked for."""

    per_sample: Seconds | None = None
    fixed: Seconds | None = None
    packs: dict[Size, Seconds] | None = None
    fastest_pack: Annotated[int, Field(ge=1)] | None = None
    alone: bool | None = None
    micro: Annotated[int, Field(ge=1)] | None = None
    checkpointing: bool | None = None
    compiled: bool | None = None
    memory: Annotated[dict[Id, Bytes], Field(max_length=FACTS)] | None = None
    flops: Seconds | None = None

    def added_to(self, before: Calibration | None, device: str, width: int = 1) -> Calibration | None:
        """A calibration with what was measured now in place of what had been; None when something lacks.

        width: devices that a second counts for.
        """
        new = self.model_dump(exclude_none=True)
        new |= {name: width * new[name] for name in ("per_sample", "fixed") if name in new}
        new |= {"packs": {size: width * each for size, each in new["packs"].items()}} if "packs" in new else {}
        fields = {**(asdict(before) if before else {}), **new, "device": device}
        if not fields.keys() >= {"per_sample", "fixed", "packs", "fastest_pack"}:
            return None
        return Calibration(**{**fields, "packs": {int(k): v for k, v in fields["packs"].items()}})


class Done(_Message):
    """A job's end. results: trial → metric → value. calibration, scores: of a job that is no trial.

    parked: samples trained of each trial that was broken off, as the device is left.
    """

    event: Literal["done"] = "done"
    results: dict[Id, Scores] = {}
    calibration: Timing | None = None
    scores: Scores = {}
    parked: dict[Id, Annotated[int, Field(ge=0)]] = {}


class Failed(_Message):
    """A job's end, in an error. memory: for want of memory."""

    event: Literal["failed"] = "failed"
    error: str
    memory: bool = False


class Bad(BaseModel):
    """What is no message. why: in one line."""

    model_config = ConfigDict(frozen=True)
    why: str


class Gone(BaseModel):
    """The worker has ended; its last event."""

    model_config = ConfigDict(frozen=True)


_Parsed = Ready | Beat | Unfit | Note | Point | Described | Usage | Done | Failed
Message = _Parsed | Bad | Gone
_FORM: TypeAdapter[_Parsed] = TypeAdapter(Annotated[_Parsed, Field(discriminator="event")])


def parse(line: bytes | None) -> Message:
    """The message of a line; None stands for a line that was too long to be held."""
    if line is None:
        return Bad(why=f"the worker sent a line of more than {LONGEST:,} bytes")
    content = read_object(line)
    if content is None:
        return Bad(why=f"the worker sent what is no JSON object: {_shown(line)}")
    try:
        message = _FORM.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "event"
        return Bad(
            why=f"the worker sent a message whose {where[:SHOWN]} is wrong ({first['msg'][:SHOWN]}): {_shown(line)}"
        )
    if isinstance(message, Failed):
        return Failed(error=" ".join(message.error.split())[:ERROR] or "no reason", memory=message.memory)
    return message


def _shown(line: bytes) -> str:
    text = redact(line.decode("utf-8", "replace"))
    return repr(text[:SHOWN] + "…" * (len(text) > SHOWN))
