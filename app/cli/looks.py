"""Commands that look: rankings, single things, the log, the UI, the report, the literature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.shared import HERE, Aggregate, Folder, Json, app, put, tell


@app.command()
def rank(
    folder: Folder = HERE,
    results: Annotated[
        str | None,
        typer.Option("--from", help="results of elsewhere: CSV file, mlflow:EXPERIMENT or wandb:RUNS.jsonl"),
    ] = None,
    aggregate: Annotated[
        Aggregate | None,
        typer.Option("--aggregate", help="with --from: how metrics are averaged; mean-of-changes by default"),
    ] = None,
    lower: Annotated[
        list[str] | None, typer.Option("--lower", help="with --from: a metric that is better when low; repeatable")
    ] = None,
    higher: Annotated[
        list[str] | None, typer.Option("--higher", help="with --from: one that is better when high, whatever its name")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option("--confidence", help="with --from: of all intervals together; 0.95 by default")
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="with --from: its column of pools; pool by default")
    ] = None,
    seed: Annotated[
        str | None, typer.Option("--seed", help="with --from: its column of seeds; seed by default")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="with --from: a column that counts, where it has several")
    ] = None,
    control: Annotated[
        str | None, typer.Option("--control", help="with --from: what the others are compared with; control by default")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", help="with --from: COLUMN=VALUE, only those that hold it; repeatable")
    ] = None,
    cycle: Annotated[
        int | None, typer.Option("--cycle", min=1, help="of a study with cycles: which; the last by default")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="with pools that were dropped by the race or left out")] = False,
    settings: Annotated[
        bool, typer.Option("--setting", help="results of other settings of study.yaml instead")
    ] = False,
    json: Json = False,
) -> None:
    """Print the study's answer, then the pools, best first, with intervals: a table for each size and length.

    Of the folder of a pipeline: the pools that its jobs ranked."""
    from app.commands import rank as look
    from app.commands import rank_file as recorded
    from engine.track.recorded.contract import Choice

    if results is None:
        if any((aggregate, lower, higher, pool, seed, metric, control, where)) or confidence is not None:
            raise typer.BadParameter(
                "--aggregate, --lower, --higher, --confidence, --pool, --seed, --metric, --control and --where go with "
                "--from; a study has its own"
            )
        ranking = look.rank(folder, cycle, tell, settings)
        if json:
            put(ranking.rows or ranking.pipelines, json, None)
        else:
            look.show_ranking(ranking, every)
    else:
        if confidence is not None and not 0.5 < confidence < 1:
            raise typer.BadParameter("--confidence lies between 0.5 and 1, e.g. 0.95")
        level = 0.95 if confidence is None else confidence
        if wrong := [text for text in where or () if "=" not in text]:
            raise typer.BadParameter(f"--where {wrong[0]}: write COLUMN=VALUE")
        kept = {name: value for name, _, value in (text.partition("=") for text in where or ())}
        choice = Choice(pool, seed, control, tuple(metric or ()), kept)
        found = recorded.rank(
            results, aggregate or "mean-of-changes", lower or [], level, higher or [], tell, choice, folder
        )
        put(found, json, look.show_rank)


@app.command()
def show(
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="a pool, trial or proposal (or its beginning), or recipe, lineage, scaling, mappers, prompts",
        ),
    ],
    folder: Folder = HERE,
    json: Json = False,
) -> None:
    """Show a pool, trial, proposal, the recipe, the cycles, the recipe at other scales, mapped pools, or prompts."""
    from app.commands.show import show as one
    from app.commands.show import show_one

    put(one(folder, id_), json, show_one)


@app.command()
def log(
    folder: Folder = HERE,
    json: Json = False,
    last: Annotated[int, typer.Option("--last", min=1, help="how many entries")] = 50,
    job: Annotated[str | None, typer.Option("--job", help="PIPELINE.NAME: what this job of a pipeline said")] = None,
) -> None:
    """Print events and decisions, oldest first."""
    from app.commands.log import log, show_log

    put(log(folder, last, job), json, show_log)


@app.command()
def tui(
    folder: Folder = HERE,
    bell: Annotated[bool, typer.Option("--bell", help="ring the terminal's bell with each notice")] = False,
    record: Annotated[Path | None, typer.Option("--record", help="file to record what is shown to")] = None,
    replay: Annotated[Path | None, typer.Option("--replay", help="play a recording instead; needs no study")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="show it in a browser of this machine instead")] = False,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="with --serve: 8321 by default; 0: any that is free")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="with --serve: address to listen at; 127.0.0.1 by default")
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="with --serve: let --host be one that other machines can reach")
    ] = False,
) -> None:
    """Watch the study in the terminal, decide on proposals, start and stop the engine. Leaving it stops nothing."""
    if record and (replay or serve):
        raise typer.BadParameter("--record goes with neither --replay nor --serve")
    if not serve and (port is not None or host is not None or allow_remote):
        raise typer.BadParameter("--port, --host and --allow-remote go with --serve")
    if serve:
        from app.tui.web.serve import serve_tui

        serve_tui(folder, bell, replay, host, port, allow_remote)
        return
    from app.tui.run import run_tui

    run_tui(folder, bell, record, replay)


@app.command()
def report(
    folder: Folder = HERE,
    out: Annotated[Path | None, typer.Option("--out", help="folder to write to; left out: DIR/report")] = None,
) -> None:
    """Write one self-contained HTML file with figures, and the figures as PNG."""
    from app.report.page import write_report

    typer.echo(str(write_report(folder, out)))


@app.command()
def studies(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="folder that holds studies", show_default="this folder")
    ] = HERE,
    json: Json = False,
) -> None:
    """List the studies of a folder: state, answer, budget, task, data, trials, best pool. Changes none of them."""
    from app.commands.studies import show_studies
    from app.commands.studies import studies as every

    put(every(folder), json, show_studies)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="folder of a study")],
    b: Annotated[Path, typer.Argument(metavar="B", help="folder of another")],
    json: Json = False,
) -> None:
    """Put two studies' leaderboards side by side, pool by pool, with how the studies differ."""
    from app.commands.compare import compare as side_by_side
    from app.commands.compare import show_compare

    put(side_by_side(a, b), json, show_compare)


@app.command()
def papers(
    query: Annotated[str, typer.Argument(metavar="[QUERY]", help="words of name, title or method; left out: all")] = "",
    tag: Annotated[
        str | None, typer.Option("--tag", help="only works with this tag, or that become this, e.g. Mixture, mapper")
    ] = None,
    json: Json = False,
) -> None:
    """Search works on data-model co-development: what a method does, needs, reports, and which proposal it becomes."""
    from app.commands.papers import papers, show_papers

    put(papers(query, tag), json, show_papers)
