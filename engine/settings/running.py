"""Sections of `study.yaml`: devices, the agent and its guard-rails."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from engine.base.amounts import parse_budget
from engine.settings.section import Section, amount_of_time

# values go into the head of a batch script: no blank, no quote, no new line
Word = Annotated[str, Field(pattern=r"^[\w.,:=@/+%*&|()\[\]-]+$", max_length=200)]
# of sbatch: what says where and how a job waits and what it gets; nothing that runs, writes or sends anything
Option = Literal[
    "begin", "constraint", "contiguous", "core-spec", "cpu-freq", "deadline", "exclude", "exclusive", "gpu-freq",
    "gres", "hint", "licenses", "mcs-label", "mem-per-cpu", "mem-per-gpu", "mincpus", "nice", "nodelist",
    "oversubscribe", "prefer", "priority", "reservation", "switches", "thread-spec", "tmp", "wckey",
]  # fmt: skip


class SlurmSection(Section):
    """What is asked of Slurm: each job is one node's share, whose devices train one trial after another."""

    partition: Word | None = Field(None, description="partition, or several with commas; null: the cluster's default")
    account: Word | None = Field(None, description="account that is charged; null: the user's default")
    qos: Word | None = Field(None, description="quality of service; null: the default")
    time: str = Field("4h", description="wall time of a job: 30min, 4h, 2days")
    jobs: int = Field(4, ge=1, le=1000, description="jobs at once, at most")
    gpus: int = Field(1, ge=0, le=64, description="GPUs of a job; 0: trials are trained on CPU cores")
    cpus: int = Field(4, ge=1, le=1024, description="CPU cores for each GPU; with gpus 0: of a job, each a device")
    memory: str | None = Field(
        None, pattern=r"^[1-9]\d{0,6}[MGT]$", description="memory of a job, as 64G; null: the cluster's default"
    )
    notice: float = Field(
        120.0, ge=5, description="seconds before a job's end at which trainings are paused, to go on in another job"
    )
    idle: float = Field(120.0, ge=0, description="seconds that a job is kept for which no trial waits")
    sbatch: dict[Option, Word | int | bool] = Field({}, description="other options of sbatch, by name")

    @field_validator("time")
    @classmethod
    def _is_time(cls, time: str) -> str:
        return amount_of_time(time)

    @model_validator(mode="after")
    def _lasts_longer_than_its_notice(self) -> SlurmSection:
        if self.seconds < 60 or self.notice > self.seconds / 2:
            raise ValueError("time must be a minute or more, and twice the notice")
        return self

    @property
    def seconds(self) -> float:
        """Wall time of a job."""
        return parse_budget(self.time)

    @property
    def devices(self) -> int:
        """Of a job."""
        return self.gpus or self.cpus


class ExecutorSection(Section):
    """Where trials run, and what is computed of the data."""

    kind: Literal["local", "ray", "slurm"] = Field(
        "local",
        description="local: this machine's devices; ray: a Ray cluster's, for trials and for work on the data; slurm: "
        "jobs of a Slurm cluster, for trials (docs/guides/slurm.md)",
    )
    address: str | None = Field(
        None,
        description="ray: address of a running cluster; null: RAY_ADDRESS, or a Ray of this machine's own. slurm: "
        "HOST or HOST:PORT at which jobs reach this machine; null: its name, and any port",
    )
    slurm: SlurmSection = SlurmSection()


class CacheSection(Section):
    """How decoded images and clips are kept."""

    form: Literal["auto", "raw", "exact", "jpeg"] = Field(
        "auto",
        description="raw: all decoded first, uncompressed; exact: what trials draw, with the same pixels; jpeg: what "
        "trials draw, compressed with small errors; auto: by their number and size",
    )
    max_gb: float | None = Field(
        None, gt=0, description="disk that exact and jpeg may take, in GB (10⁹ bytes); null: half of what is free"
    )


class AgentSection(Section):
    """The optional language model; its key is read from OPENAI_API_KEY, its server from OPENAI_BASE_URL."""

    model: str | None = Field(None, description="name of the chat model; null: no model is asked")
    proposals: int = Field(3, ge=1, le=10, description="proposals that it is asked for after each stage")
    tries: int = Field(3, ge=1, le=10, description="replies that it may give until one is valid and passes the gate")
    timeout: float = Field(60.0, gt=0, description="seconds that one request may take")
    patience: float = Field(300.0, gt=0, description="seconds that one round of questions may take, retries counted")
    tokens: int = Field(200_000, ge=0, description="tokens, read and written, that the study may use in all")
    price: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = Field(
        None, description="[read, written] dollars per million tokens, to count costs; null: not counted"
    )
    max_cost: float | None = Field(None, gt=0, description="dollars that the study may spend on it; needs price")
    rows: int = Field(3, ge=0, le=20, description="rows of a bucket that it may see at once; 0: none of your data")

    @model_validator(mode="after")
    def _cost_has_a_price(self) -> AgentSection:
        if self.max_cost is not None and self.price is None:
            raise ValueError("max_cost needs price: [read, written] dollars per million tokens")
        return self


class GuardSection(Section):
    """Guard-rails: what may be approved of a language model's proposals without a person."""

    approve: Literal["auto", "hold"] = Field(
        "hold", description="hold: a model's proposals wait for a person; auto: those within the guard-rails run"
    )
    kinds: tuple[str, ...] = Field(("combine", "seeds"), description="kinds of proposals that may be approved")
    cost: str | None = Field("30min", description="device time that one of them may take at most; null: any")
    cost_per_day: str | None = Field("2gpu-hours", description="device time of all in 24 hours; null: any")
    paper_agrees: bool = Field(True, description="only if the paper's procedure would ask for it as well")

    @field_validator("kinds")
    @classmethod
    def _reads_the_retired_kind(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        return tuple("transfer" if kind == "scale" else kind for kind in kinds)

    @field_validator("cost", "cost_per_day")
    @classmethod
    def _is_amount(cls, amount: str | None) -> str | None:
        return None if amount is None else amount_of_time(amount)


Occasion = Literal["approval", "confirmed", "ended", "failed", "budget"]


class NotifySection(Section):
    """Who is told of what happens while nobody looks: a program of yours, a webhook, or both."""

    command: tuple[str, ...] = Field(
        (),
        description="program and arguments; it gets the notice as JSON on standard input, and in variables",
    )
    env: tuple[str, ...] = Field((), description="variables that the program gets besides the usual ones, by name")
    webhook: str | None = Field(
        None, pattern=r"^https?://\S+$", description="address that the notice is posted to as JSON"
    )
    webhook_from: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="variable of the environment that holds the address, where the address itself is a key",
    )
    on: tuple[Occasion, ...] = Field(
        ("approval", "confirmed", "ended", "failed", "budget"),
        description="approval: a decision is awaited; confirmed: a recipe; ended, failed: the run; budget: 80 % of it",
    )
    timeout: float = Field(10.0, gt=0, le=300, description="seconds that one notice may take")

    @model_validator(mode="after")
    def _one_address(self) -> NotifySection:
        if self.webhook and self.webhook_from:
            raise ValueError("give webhook or webhook_from, not both")
        return self
