"""What comes in and goes out: checkpoints, rows, recipes, what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli.shared import (
    HERE,
    Folder,
    Force,
    Format,
    Json,
    Out,
    ShardRows,
    WithMedia,
    Workers,
    app,
    export_app,
    put,
    tell,
    write,
)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="folder of an InternVL, LLaVA or VideoCrafter2 as released")
    ],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="folder to write")],
    vision: Annotated[
        Path | None, typer.Option("--vision", help="folder of the CLIP tower, for a LLaVA whose weights lack it")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="folder of a CLIP's tokenizer, for a VideoCrafter2")
    ] = None,
    fps: Annotated[
        int, typer.Option("--fps", min=1, max=240, help="frames a second that a VideoCrafter2 is told for good")
    ] = 16,
    json: Json = False,
) -> None:
    """Write a checkpoint in its authors' layout as one of transformers or diffusers; no code of it is run."""
    from app.commands.convert import convert, show_converted

    put(convert(source, target, vision, tokenizer, fps), json, show_converted)


@app.command()
def apply(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe file")],
    data: Annotated[Path, typer.Option("--data", help="the full dataset")],
    out: Out,
    format_: Format = None,
    shard_rows: ShardRows = None,
    with_media: WithMedia = False,
    study: Annotated[
        Path | None, typer.Option("--dir", help="study whose statistics are used; left out: the recipe's own folder")
    ] = None,
    scores: Annotated[
        list[Path] | None, typer.Option("--scores", help="a file whose columns the rows get as fields, by --key")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="field of rows and --scores that they are joined by")] = None,
    force: Force = False,
    workers: Workers = None,
    executor: Annotated[
        Literal["local", "ray"], typer.Option("--executor", help="where rows are judged: here, or on a Ray cluster")
    ] = "local",
    address: Annotated[
        str | None, typer.Option("--address", help="host:port of a Ray cluster's head; left out: RAY_ADDRESS")
    ] = None,
    json: Json = False,
) -> None:
    """Run a recipe on a full dataset: the rows that Data-Juicer keeps. What was interrupted goes on."""
    from app.commands import apply as applying
    from app.commands.apply import Form
    from app.text.printable import say_fields
    from app.text.progress import Display
    from engine.settings.data import ScoreFileSection
    from engine.settings.running import ExecutorSection

    form = Form(format_, shard_rows, with_media, force)
    where = ExecutorSection(kind=executor, address=address)
    if bool(scores) != bool(key):
        raise typer.BadParameter("--scores and --key go together")
    beside = [ScoreFileSection(path=str(file.absolute()), key=key or "") for file in scores or ()]
    with Display() as display:
        done = applying.apply(recipe, data, out, form, study, workers, display.notice, where, beside)
    put(done, json, say_fields)


@export_app.command("recipe")
def export_recipe(
    folder: Folder = HERE,
    out: Annotated[Path | None, typer.Option("--out", help="file to write; left out: standard output")] = None,
    pool: Annotated[str | None, typer.Option("--pool", help="a pool's id; left out: the confirmed recipe")] = None,
) -> None:
    """Write a Data-Juicer recipe (YAML) that keeps the rows of a pool's slices."""
    from engine.evidence.recipe_file import recipe

    write(recipe(folder, pool), out)


@export_app.command("pool")
def export_pool(
    pool: Annotated[str, typer.Argument(metavar="ID", help="the pool's id")],
    out: Out,
    folder: Annotated[Path, typer.Option("--dir", help="folder of the study")] = HERE,
    format_: Format = None,
    seed: Annotated[int, typer.Option("--seed", help="the trial seed whose sample is written")] = 0,
    shard_rows: ShardRows = None,
    with_media: WithMedia = False,
    force: Force = False,
    workers: Workers = None,
) -> None:
    """Write a pool's rows."""
    from app.commands import export
    from app.commands.apply import Form
    from app.text.progress import Display

    form = Form(format_, shard_rows, with_media, force)
    with Display() as display:
        rows = export.pool(folder, pool, out, form, seed, workers, display.notice)
    tell(f"{rows} rows written to {out}")


@export_app.command("results")
def export_results(
    folder: Folder = HERE,
    out: Annotated[Path | None, typer.Option("--out", help="file to write; left out: standard output")] = None,
    format_: Annotated[Literal["csv", "json"], typer.Option("--format")] = "csv",
) -> None:
    """Write every measured value: pool, seed, metric, value."""
    from app.commands import export

    write(export.results(folder, format_), out)


@app.command()
def publish(
    folder: Folder = HERE,
    out: Annotated[Path | None, typer.Option("--out", help="folder to make; left out: DIR/publish")] = None,
    pool: Annotated[str | None, typer.Option("--pool", help="a pool's id; left out: the confirmed recipe")] = None,
    rows: Annotated[bool, typer.Option("--rows", help="the rows themselves; left out: their numbers and ids")] = False,
    with_media: WithMedia = False,
    license_: Annotated[
        str | None, typer.Option("--license", help="of the rows, as their source has it: an SPDX identifier")
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", help="OWNER/NAME: upload to this private data set of the hub, by your login")
    ] = None,
    force: Force = False,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Make a folder ready for the hub: recipe, rows or ids, data card, Croissant, provenance, report."""
    from app.publish.folder import Wish
    from app.publish.folder import publish as make
    from app.publish.folder import push as upload
    from app.text.printable import say_fields
    from app.text.progress import Display

    if with_media and not rows:
        raise typer.BadParameter("--with-media goes with --rows")
    url = f"https://huggingface.co/datasets/{push}" if push else None
    target = out or folder / "publish"
    with Display() as display:
        made = make(folder, target, Wish(pool, rows, with_media, license_, url, force), workers, display.notice)
    if push:
        made["url"] = upload(target, push)
    put(made, json, say_fields)
