"""The contract of a component: what a job of a pipeline runs.

A component is one file of `components/` that declares `COMPONENTS`. It says what settings it takes, which of them name
files that it reads and writes, and how many outputs it gives; so a pipeline is checked whole before anything runs. The
engine has put local settings, inputs and the iteration's folder into the settings when `run` is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from engine.base.confine import inside
from engine.base.errors import DjsbError

GROUPS = ("dj_configs", "extra_configs")


class ComponentError(DjsbError):
    """A job cannot be done. `str` says what is wrong, where and what to do."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Paths = Annotated[list[str], BeforeValidator(_as_list)]  # one path is a list of one, never its letters


class Group(BaseModel):
    """Base of a component's dj_configs and extra_configs: no unknown keys. A component of type T takes `type: T`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str | None = None


class NoKeys(Group):
    """A group that a component does not take; it may be empty."""


class Settings(BaseModel):
    """Base of a component's settings: both groups, each a model. Errors name a key as the user's file does."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    dj_configs: NoKeys = NoKeys()
    extra_configs: NoKeys = NoKeys()


class Files(Group):
    """Data sets that are read, and the folder that is written to."""

    dataset_path: Paths = Field(min_length=1)
    export_path: str


E = TypeVar("E", bound=Group)


class Takes(Settings, Generic[E]):
    """Settings of a component that takes keys in extra_configs only."""

    extra_configs: E  # type: ignore[assignment]


S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class Draft:
    """A job's settings before anything runs. later: dotted keys whose values come from other jobs."""

    groups: Mapping[str, Any]
    later: frozenset[str] = frozenset()

    def is_later(self, key: str) -> bool:
        """True for a key whose value, or a part of whose value, is not known yet."""
        return any(key == k or key.startswith(f"{k}.") or k.startswith(f"{key}.") for k in self.later)

    def get(self, key: str) -> Any:
        """The value under a dotted key; None where there is none, or where it comes later."""
        value: Any = self.groups
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return None if self.is_later(key) else value

    def texts(self, *keys: str) -> list[str]:
        """All texts that stand under these keys, those of lists too."""
        values = [v for key in keys for v in _as_list(self.get(key)) or ()]
        return [v for v in values if isinstance(v, str) and v]


@dataclass(frozen=True)
class Context:
    """What a component may use besides its settings.

    root: folder that relative paths start from. work: folder of the pipeline's own files. job: PIPELINE.NAME, for
    messages. seed: of this repetition, for components that are `seeded`. tracked: what earlier jobs under the same name
    have tracked. scratch: a folder for this job alone, which goes when it ends. environ: allow_install and other
    switches of the command line. say: a line for the log. measure: (name, value, step) of a curve.
    """

    root: Path
    work: Path
    job: str
    scratch: Path
    seed: int = 0
    workers: int | None = None
    allow_install: bool = False
    tracked: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = print
    measure: Callable[[str, float, int], None] = lambda _name, _value, _step: None

    def path(self, name: str) -> Path:
        """A path of the settings."""
        return (self.root / Path(name).expanduser()).resolve()

    def file(self, name: str) -> Path:
        """A file of the settings that is read. Raises: ComponentError where it is not there."""
        path = self.path(name)
        if not path.exists():
            raise ComponentError(f"{self.job}: {path} is not there; check the path")
        return path

    def target(self, folder: str, name: str) -> Path:
        """Where to write a file whose name comes from data: within the folder that the settings name, which is made.

        Raises: StoreError for a name that leads out of it.
        """
        base = self.path(folder)
        base.mkdir(parents=True, exist_ok=True)
        return inside(base, name)


@dataclass(frozen=True)
class Done:
    """What a component gives: one value for each of its `gives`. tracked: numbers and tables for the tracker."""

    outputs: Sequence[Any] = ()
    tracked: Any = None


class Component(ABC, Generic[S]):
    """One component. Its class attributes are the contract; `check`, `reads` and `writes` have what most need.

    name: its `type`, as in the guide. hooks: that may run it. settings: its keys. gives: what its outputs are, one word
    each. read_keys, write_keys: dotted keys of paths. seeded: another seed gives another result. over_seeds: it is
    run once, on the mean of its inputs over the seeds. environ: variables
    that it may see though they hold keys, as OPENAI_API_KEY. tracks: it writes to the tracker under its job's name;
    needs_tracked: it reads what earlier jobs of that name wrote.
    """

    name: ClassVar[str]
    hooks: ClassVar[frozenset[str]]
    settings: type[S]
    gives: ClassVar[tuple[str, ...]] = ()
    read_keys: ClassVar[tuple[str, ...]] = ()
    write_keys: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    over_seeds: ClassVar[bool] = False
    environ: ClassVar[tuple[str, ...]] = ()
    environ_key: ClassVar[str] = ""  # of extra_configs: names more of them
    tracks: ClassVar[bool] = False
    needs_tracked: ClassVar[bool] = False
    version: ClassVar[int] = 1  # raised when the same settings give other results: what was stored is run again

    def check(self, draft: Draft) -> Iterable[tuple[str, str]]:
        """(key, what is wrong and what to do) beyond the types and the files, which the engine checks."""
        del draft
        return ()

    def reads(self, draft: Draft) -> list[str]:
        """Paths that it reads, as far as they are known."""
        return draft.texts(*self.read_keys)

    def writes(self, draft: Draft) -> list[str]:
        """Files and folders that it writes, as far as they are known."""
        return draft.texts(*self.write_keys)

    def scores(self, groups: Mapping[str, Any]) -> Mapping[str, Mapping[str, float | None]]:
        """Pool → metric → value, as far as the settings hold what pools were evaluated to; for the leaderboard."""
        del groups
        return {}

    @abstractmethod
    def run(self, settings: S, context: Context) -> Done:
        """Do the job, in a process of its own. What is killed is run again from the start.

        Raises: DjsbError in one line.
        """
