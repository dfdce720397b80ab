"""What is installed of djsb's packages. Looking at a study needs few; `djsb[engine]` brings those that run one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.base.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.requirements import Requirement


def extras() -> list[str]:
    """The extras of djsb, but those that hold others only."""
    from importlib.metadata import PackageNotFoundError, metadata  # start-up time

    try:
        names = metadata("djsb").get_all("Provides-Extra") or []
    except PackageNotFoundError:  # a clone that is run without being installed
        names = []
    return sorted(name for name in names if name not in ("all", "dev"))


def version_of(name: str) -> str | None:
    """The version of a package, or None where it is missing."""
    from importlib.metadata import PackageNotFoundError, version  # start-up time

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def pin(name: str) -> str:
    """The one version of a package of the engine that djsb works with."""
    return next(next(iter(need.specifier)).version for need in _needs("engine") if need.name == name)


def getting(extra: str) -> str:
    """The command that gets an extra."""
    return f"pip install 'djsb[{extra}]'"


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not there."""
    return [need.name for need in _needs(extra) if version_of(need.name) is None]


def wrong(extra: str = "") -> list[str]:
    """The packages that djsb itself, or one of its extras, asks for and that are missing or of another version."""
    found = []
    for need in _needs(extra):
        if (there := version_of(need.name)) is None:
            found.append(f"{need.name} is missing")
        elif not need.specifier.contains(there, prereleases=True):
            found.append(f"{need.name} {there} is not {need.specifier}")
    return found


def need_engine(command: str) -> None:
    """Raises: MachineError where a command needs packages of the engine that are missing."""
    if absent := missing("engine"):
        raise MachineError(
            f"{command} needs {', '.join(absent)}: {getting('engine')}; what was run can be looked at without"
        )


def remedy(module: str) -> str | None:
    """The command that gets a module of others that could not be imported; None where no extra lacks it."""
    plain = module.partition(".")[0].replace("_", "-").lower()
    lacking = {extra: missing(extra) for extra in sorted(extras(), key="engine".__ne__)}
    # a package of the engine brings others that are not named
    fitting = [extra for extra, names in lacking.items() if any(plain in name.lower() for name in names)]
    return getting(fitting[0]) if fitting else getting("engine") if lacking.get("engine") else None


def _requires() -> list[str]:
    from importlib.metadata import PackageNotFoundError, requires  # start-up time

    try:
        return requires("djsb") or []
    except PackageNotFoundError:  # a clone that is run without being installed
        return []


def _needs(extra: str) -> Iterator[Requirement]:
    """What djsb asks for always, or what one of its extras adds to that."""
    from packaging.requirements import Requirement  # start-up time: few commands come here

    for need in map(Requirement, _requires()):
        always = need.marker is None or need.marker.evaluate({"extra": ""})
        if always != (not extra) or (need.marker and not need.marker.evaluate({"extra": extra})):
            continue
        if need.name == "djsb":  # an extra that holds others
            for other in sorted(need.extras):
                yield from _needs(other)
        else:
            yield need
