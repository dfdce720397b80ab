"""What commands have in common: their groups, options that several take, and how results are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Data-model co-development on local devices: probe operators, combine them, confirm a data recipe.",
)
export_app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Write a recipe, a pool or the results to a file.",
)

app.add_typer(export_app, name="export")
pool_app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Make pools of analysed rows, combine, repeat, cut, rank, merge and join them.",
)
app.add_typer(pool_app, name="pool")

Folder = Annotated[Path, typer.Argument(metavar="[DIR]", help="folder of the study", show_default="this folder")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="devices or CPU cores to use; all by default")]
Out = Annotated[Path, typer.Option("--out", help="file to write, or folder of shards")]
Format = Annotated[
    Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "webdataset"] | None,
    typer.Option("--format", help="left out: as the file's name ends"),
]
ShardRows = Annotated[
    int | None, typer.Option("--shard-rows", min=1, help="write shards of so many rows into a folder")
]
WithMedia = Annotated[bool, typer.Option("--with-media", help="copy images and videos beside the rows")]
Force = Annotated[bool, typer.Option("--force", help="replace what is there")]
Pools = Annotated[list[Path], typer.Argument(metavar="POOL…", help="files of rows")]
Into = Annotated[Path, typer.Option("--out", help="folder to write to")]
Numbers = Annotated[bool, typer.Option("--numbers", help="write which rows a pool has, in place of the rows")]
HERE = Path()


Stage = Literal["probe", "combine", "scale", "screen", "confirm"]
Approve = Literal["auto", "hold"]
Aggregate = Literal["mean-of-changes", "change-of-means"]
Who = Literal["paper", "race", "mixtures", "model", "person"]
Status = Literal["queued", "held", "approved", "rejected", "edited", "refused", "superseded"]


def put(result: Any, as_json: bool, show_result: Any) -> None:
    """A result as JSON, or as people read it."""
    if as_json:
        from engine.base.ids import json_text

        typer.echo(json_text(result, indent=2))
    else:
        show_result(result)


def write(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text.encode(), nl=False)  # a file in UTF-8, whatever the terminal speaks
    else:
        out.write_text(text, encoding="utf-8")
        tell(f"written to {out}")


def tell(text: str) -> None:
    from app.text.printable import say

    say(text, err=True)
