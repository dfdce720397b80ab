"""The section of the study file that says what the recipe is for."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from engine.settings.section import Section

UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
AMOUNT = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([KMBT]?)", re.IGNORECASE)


def amount(value: Any) -> Any:
    """`7B` as a number. Raises: ValueError."""
    if not isinstance(value, str):
        return value
    parts = AMOUNT.fullmatch(value.strip())
    if not parts:
        raise ValueError(f"{value[:40]!r} is no amount; write a number, or 350M, 7B, 1.5T")
    return round(float(parts[1]) * UNITS[parts[2].upper()])


class TargetSection(Section):
    """What the recipe is for: its probes repeat their rows as the target will."""

    rows: int | None = Field(None, ge=1, description="rows that it will be applied to, before it filters; 12M")
    samples: int | None = Field(None, ge=1, description="rows that the target trains on in all, repeats counted; 1.28B")
    epochs: float | None = Field(None, gt=0, description="in place of samples: passes over the rows that it keeps")
    model: int | None = Field(None, ge=1, description="parameters of the model that is trained then; 350M")

    _amounts = field_validator("rows", "samples", "model", mode="before")(amount)

    @model_validator(mode="after")
    def _says_one_thing(self) -> TargetSection:
        if self.samples and self.epochs:
            raise ValueError("give samples or epochs, and not both")
        if self.samples and not self.rows:
            raise ValueError("samples need rows: how many rows the recipe will be applied to")
        return self

    def repetition(self, share: float) -> float | None:
        """How often the target sees a row of a recipe that keeps this share; None where that is not said."""
        if self.samples and self.rows:
            return max(1.0, self.samples / (share * self.rows))
        return self.epochs
