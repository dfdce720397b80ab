"""Pools as files, one manipulation a command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.text.printable import say
from engine.base.errors import PoolError
from engine.pools.files import as_file, open_pool
from engine.pools.rank import rank


def told(note: str) -> None:
    """A note of a manipulation, for people."""
    say(note, err=True)


def made(pools: Sequence[Path]) -> list[dict[str, Any]]:
    """What a manipulation has made."""
    return [{"pool": str(pool), "rows": len(open_pool(pool))} for pool in pools]


def written(pools: Sequence[Path]) -> list[dict[str, Any]]:
    """Pools as files of rows."""
    return made([as_file(pool) for pool in pools])


def ranked(
    pools: Sequence[Path], metrics: Path, keys: Sequence[str], descending: bool, top: int | None
) -> list[dict[str, Any]]:
    """The pools, best first. metrics: a JSON file with a list of numbers or maps. Raises: PoolError."""
    try:
        found = json.loads(metrics.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PoolError(
            f"{metrics} is no JSON file that can be read ({error}); give a list with the metrics of each pool"
        ) from error
    return [{"pool": pool} for pool in rank([str(pool) for pool in pools], found, keys, descending, top, told)]


def show_pools_made(found: Sequence[dict[str, Any]]) -> None:
    """A pool a line."""
    for entry in found:
        say(f"{entry['rows']:>9}  {entry['pool']}" if "rows" in entry else entry["pool"])
