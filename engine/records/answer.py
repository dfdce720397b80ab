"""The study's current answer, in words that every place repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from engine.records.leaderboard import Change, CycleRecipe

# to whom the results on fresh seeds are not shown, so that nothing they propose is fitted to them
WITHHELD = "The confirmation on fresh seeds has ended. What it came to is shown to people only."


@dataclass(frozen=True)
class Answer:
    """What a study says now, and why.

    kind: recipe: one is confirmed; none: what was tried is not better; open: nothing is concluded yet. text: the answer
    in one sentence. reasons: sentences that it rests on. remedy: what would get an answer, or a better one; or nothing.
    recipe: of this cycle or, where it has none, of the one before. against_all: that recipe against all rows at as many
    trained samples; None where that was not measured. unconfirmed: why this cycle's confirmation says nothing yet.
    fresh: the text rests on the fresh seeds.
    """

    kind: Literal["recipe", "none", "open"]
    text: str
    reasons: tuple[str, ...] = ()
    remedy: str = ""
    recipe: CycleRecipe | None = None
    against_all: Change | None = None
    unconfirmed: str | None = None
    fresh: bool = False

    @property
    def lines(self) -> list[str]:
        """As status, ranking, UI and report begin."""
        return [self.text, *self.reasons, *([self.remedy] if self.remedy else [])]

    @property
    def blind(self) -> list[str]:
        """The same for a language model, which sees nothing of the fresh seeds."""
        return [WITHHELD] if self.fresh else self.lines

    def to_json(self) -> dict[str, Any]:
        """The fields of commands that tell the answer."""
        return {
            "recipe": self.recipe and self.recipe.to_json(),
            "unconfirmed": self.unconfirmed,
            "answer": {
                "kind": self.kind, "text": self.text, "reasons": list(self.reasons), "remedy": self.remedy,
                "against_all": self.against_all and self.against_all.to_json(),
            },
        }  # fmt: skip
