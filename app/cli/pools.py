"""`djsb pool`: pools as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.shared import Into, Json, Numbers, Pools, pool_app, put


@pool_app.command("construct")
def pool_construct(
    data: Pools,
    out: Into,
    ratio: Annotated[
        list[str] | None,
        typer.Option("--ratio", help="where a part ends, as 1/3; thirds by default"),
    ] = None,
    size: Annotated[int | None, typer.Option("--size", min=1, help="rows of a part, in place of --ratio")] = None,
    in_order: Annotated[bool, typer.Option("--in-order", help="cut the rows as they stand, by no statistic")] = False,
    numbers: Numbers = False,
    json: Json = False,
) -> None:
    """Cut analysed rows into pools of low, middle and high values of each statistic."""
    from app.commands import pool
    from engine.pools.construct import construct

    found = construct(data, out, ratio, size, in_order, "rows" if numbers else "jsonl", pool.told)
    put(pool.made(found), json, pool.show_pools_made)


@pool_app.command("combine")
def pool_combine(
    pools: Pools,
    out: Into,
    at_least: Annotated[int, typer.Option("--at-least", min=1, help="rows of a combination that is written")] = 1,
    numbers: Numbers = False,
    json: Json = False,
) -> None:
    """Write all intersections of pools, given best first."""
    from app.commands import pool
    from engine.pools.combine import combine

    found = combine(pools, out, at_least, form="rows" if numbers else "jsonl", tell=pool.told)
    put(pool.made(found), json, pool.show_pools_made)


@pool_app.command("duplicate")
def pool_duplicate(
    pools: Pools,
    out: Into,
    times: Annotated[list[int], typer.Option("--times", min=1, help="how often rows are repeated; may be given again")],
    shuffle: Annotated[bool, typer.Option("--shuffle", help="mix the rows")] = False,
    seed: Annotated[int, typer.Option("--seed", help="of the mixing")] = 42,
    numbers: Numbers = False,
    json: Json = False,
) -> None:
    """Repeat the rows of pools."""
    from app.commands import pool
    from engine.pools.resize import duplicate

    found = duplicate(pools, out, times, shuffle, seed, "rows" if numbers else "jsonl")
    put(pool.made(found), json, pool.show_pools_made)


@pool_app.command("downsample")
def pool_downsample(
    pools: Pools,
    out: Into,
    size: Annotated[int | None, typer.Option("--size", min=1, help="rows of a pool; left out: of the smallest")] = None,
    seed: Annotated[int, typer.Option("--seed", help="of the draw")] = 42,
    numbers: Numbers = False,
    json: Json = False,
) -> None:
    """Draw rows of pools at random, so that all have as many."""
    from app.commands import pool
    from engine.pools.resize import downsample

    found = downsample(pools, out, size, seed, "rows" if numbers else "jsonl", pool.told)
    put(pool.made(found), json, pool.show_pools_made)


@pool_app.command("rank")
def pool_rank(
    pools: Pools,
    metrics: Annotated[Path, typer.Option("--metrics", help="JSON list: a number or a map for each pool")],
    key: Annotated[
        list[str] | None, typer.Option("--key", help="what of a map counts, dots lead inwards; again: where it ties")
    ] = None,
    ascending: Annotated[bool, typer.Option("--ascending", help="low is best")] = False,
    top: Annotated[int | None, typer.Option("--top", min=1, help="how many are printed")] = None,
    json: Json = False,
) -> None:
    """Print pools in the order of their evaluation, best first."""
    from app.commands import pool

    put(pool.ranked(pools, metrics, key or (), not ascending, top), json, pool.show_pools_made)


@pool_app.command("merge")
def pool_merge(pools: Pools, out: Into, numbers: Numbers = False, json: Json = False) -> None:
    """Write the rows of pools one after the other."""
    from app.commands import pool
    from engine.pools.join import merge

    found = merge(pools, out, "rows" if numbers else "jsonl")
    put(pool.made([found]), json, pool.show_pools_made)


@pool_app.command("join")
def pool_join(
    pools: Pools,
    out: Into,
    with_: Annotated[list[Path], typer.Option("--with", help="the other pools; may be given again")],
    json: Json = False,
) -> None:
    """Write every row of one pool beside every row of another."""
    from app.commands import pool
    from engine.pools.join import join

    put(pool.made(join(pools, with_, out)), json, pool.show_pools_made)


@pool_app.command("write")
def poolwrite(pools: Pools, json: Json = False) -> None:
    """Write the rows of pools of which only the row numbers are kept."""
    from app.commands import pool

    put(pool.written(pools), json, pool.show_pools_made)
