"""Items of an input, read one by one: a bad one is left out and counted, up to the study's limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from engine.base.errors import DataError
from engine.records.accounting import Accounting

MAX_BAD = 0.2  # dataset.max_bad as it is where the study does not say
Item = TypeVar("Item")
Made = TypeVar("Made")


class Unusable(Exception):
    """An item that is left out. kind: why, in a few words. spared: it is not bad, and does not count for the limit."""

    def __init__(self, kind: str, said: str = "", spared: bool = False) -> None:
        super().__init__(said or kind)
        self.kind, self.spared = kind, spared


class Sifted(list[Made]):
    """What was made of the items that can be used, with the accounting of all. bad: how many are not only left out."""

    def __init__(self, made: Iterable[Made], accounting: Accounting, bad: int = 0) -> None:
        super().__init__(made)
        self.accounting, self.bad = accounting, bad

    def without(self, kept: list[Made], kind: str, said: list[str], max_bad: float) -> Sifted[Made]:
        """The same without items that turn out bad later on. said: place and reason of each unit of the accounting."""
        if not said:
            return self
        old = less(self.accounting, kind, len(said))
        note = old.note.replace(f"{len(self)} questions", f"{len(kept)} questions")
        found = Sifted(kept, old.noted(note), self.bad + len(said))
        found.refuse(max_bad, said[0])
        return found

    def refuse(self, max_bad: float, first: str) -> None:
        """Raises: DataError when more than `max_bad` of the items are bad, or all. first: place and reason of one."""
        refuse_bad(self.accounting, self.bad, not self, max_bad, first)


def less(told: Accounting, kind: str, units: int) -> Accounting:
    """The accounting without units that turn out bad later on."""
    return replace(told, used=told.used - units, left_out=(*told.left_out, (kind, units)))


def refuse_bad(told: Accounting, bad: int, nothing: bool, max_bad: float, first: str) -> None:
    """Raises: DataError when more than `max_bad` of the items are bad, or nothing is left. first: of the bad ones."""
    if bad and (bad > max_bad * told.expected or nothing):
        raise DataError(
            f"{told.input}: {bad} of {told.expected} {told.unit} are bad (dataset.max_bad is {max_bad:.0%}), "
            f"the first: {first}; mend them there, or raise dataset.max_bad"
        )


class Sieve:
    """Items of an input as they go by, so that none has to be kept; a bad one is left out and counted."""

    def __init__(self, name: str, unit: str, max_bad: float) -> None:
        self.name, self.unit, self.max_bad = name, unit, max_bad
        self.kinds: Counter[str] = Counter()
        self.expected, self.used, self.bad, self.first = 0, 0, 0, ""

    def through(
        self, items: Iterable[tuple[str, Item]], read: Callable[[str, Item], Made],
        weigh: Callable[[Item], int] = lambda _: 1,
    ) -> Iterator[Made]:  # fmt: skip
        """What `read` makes of every item; one for which it raises Unusable is left out. See `sift`."""
        for place, item in items:
            units = weigh(item)
            self.expected += units
            try:
                made = read(place, item)
            except Unusable as error:
                self.kinds[error.kind] += units
                if not error.spared:
                    self.bad += units
                    self.first = self.first or f"{place}: {error}"
                continue
            self.used += units
            yield made

    @property
    def accounting(self) -> Accounting:
        """Of the items that went by."""
        return Accounting(self.name, self.expected, self.used, tuple(self.kinds.most_common()), unit=self.unit)

    def refuse(self) -> None:
        """Raises: DataError when more than `max_bad` of the items were bad, or all."""
        refuse_bad(self.accounting, self.bad, not self.used, self.max_bad, self.first)


def sift(
    name: str, unit: str, items: Iterable[tuple[str, Item]], read: Callable[[str, Item], Made],
    max_bad: float, weigh: Callable[[Item], int] = lambda _: 1,
) -> Sifted[Made]:  # fmt: skip
    """What `read` makes of every item; one for which it raises Unusable is left out.

    name: of the input. items: (place for messages, item). weigh: units that an item stands for.
    Raises: DataError when more than `max_bad` of them are bad, or all are.
    """
    sieve = Sieve(name, unit, max_bad)
    found = Sifted(sieve.through(items, read, weigh), sieve.accounting)
    found.accounting, found.bad = sieve.accounting, sieve.bad
    found.refuse(max_bad, sieve.first)
    return found
