"""Pydantic's errors in one line, each with its field."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError


def explain(
    error: ValidationError, whole: str = "study", fields: str = " (docs/reference/study.md lists them all)"
) -> str:
    """All problems in one line, each with its field and what is wanted. whole: names what has no field."""
    return "; ".join(f"{field}: {message}" for field, message in each(error, whole, fields))


def each(error: ValidationError, whole: str = "", fields: str = "") -> Iterator[tuple[str, str]]:
    """(field, message) of each problem. whole: names what has no field. fields: where they are listed."""
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"]) or whole
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown field; remove it{fields}"
        elif problem["type"] == "missing":
            message = "is missing; add it"
        else:
            got = problem.get("input")
            message += f" (it is {got!r})" if isinstance(got, str | int | float | bool) else ""
        yield field, message
