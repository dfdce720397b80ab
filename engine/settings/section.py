"""The sections of the study file, each with its fields, defaults and bounds. `study.py` holds the whole."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.base.amounts import parse_budget
from engine.base.errors import BudgetError


class Section(BaseModel):
    """Base of the sections: frozen, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def later(default: Any, **options: Any) -> Any:
    """A field added after the first version. Trial ids leave out its default, so older trials keep their ids."""
    return Field(default, json_schema_extra={"later": True}, **options)


def shared(section: BaseModel, leave_out: Set[str] = frozenset()) -> dict[str, Any]:
    """The section's fields that trials have in common, as JSON, without some by name."""
    added = {
        name
        for name, info in type(section).model_fields.items()
        if isinstance(info.json_schema_extra, dict) and getattr(section, name) == info.get_default()
    }
    return section.model_dump(exclude={*leave_out, *added})


def amount_of_time(budget: str) -> str:
    """The text of an amount of device time, checked.

    Raises: ValueError.
    """
    try:
        parse_budget(budget)
    except BudgetError as error:
        raise ValueError(str(error)) from error
    return budget
