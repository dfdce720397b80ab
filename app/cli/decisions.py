"""Proposals and decisions, and who else may propose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.shared import HERE, Folder, Json, Status, Who, app, put, write


@app.command()
def propose(
    folder: Folder = HERE,
    by: Annotated[Who, typer.Option("--by", help="who proposes; person: yourself, from --from")] = "paper",
    n: Annotated[int | None, typer.Option("--n", min=1, help="how many at most")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="file with your own proposal, YAML or JSON; - is standard input")
    ] = None,
    json: Json = False,
) -> None:
    """Ask a proposer for the next experiments and queue what passes the gate. Nothing runs before a decision."""
    from app.commands.propose import propose, show_propose

    if (source is not None) != (by == "person"):
        raise typer.BadParameter("--from goes with --by person, and --by person needs it")
    put(propose(folder, by, n, source), json, show_propose)


@app.command()
def proposals(
    folder: Folder = HERE,
    status_: Annotated[Status | None, typer.Option("--status", help="only those of one status")] = None,
    json: Json = False,
) -> None:
    """List proposals with origin, status, cost and reason, oldest first."""
    from app.commands import proposals as reviewing

    put(reviewing.proposals(folder, status_), json, reviewing.show_proposals)


@app.command()
def review(
    proposal: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="the proposal; left out: list what waits")
    ] = None,
    folder: Annotated[Path, typer.Option("--dir", help="folder of the study")] = HERE,
    every: Annotated[bool, typer.Option("--all", help="decide on all that wait")] = False,
    approve: Annotated[bool, typer.Option("--approve", help="let it run")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="refuse it for good")] = False,
    hold: Annotated[bool, typer.Option("--hold", help="leave it waiting")] = False,
    edit: Annotated[
        bool, typer.Option("--edit", help="put an edited version in its place; with --approve it may run at once")
    ] = False,
    source: Annotated[
        Path | None, typer.Option("--from", help="with --edit: the edited version; left out: your editor")
    ] = None,
    why: Annotated[str, typer.Option("--why", help="the reason, for the record")] = "",
    json: Json = False,
) -> None:
    """Decide on proposals that wait for a person."""
    from app.commands.review import edit as replace
    from app.commands.review import review, show_review

    verdicts = [v for v, given in (("approve", approve), ("reject", reject), ("hold", hold)) if given]
    if edit:
        if proposal is None or every or verdicts not in ([], ["approve"]):
            raise typer.BadParameter("--edit takes one ID, and goes with --approve only")
        found = replace(folder, proposal, source, approve, why)
    else:
        if len(verdicts) > 1 or source is not None or (verdicts and not (every or proposal)):
            raise typer.BadParameter("give one of --approve, --reject, --hold or --edit, and an ID or --all")
        found = review(folder, proposal, every, verdicts[0] if verdicts else None, why)
    put(found, json, show_review)
    if not verdicts and not edit and found["waiting"]:
        raise typer.Exit(3)


@app.command()
def readmit(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="id of a pool that the race has dropped")],
    folder: Annotated[Path, typer.Option("--dir", help="folder of the study")] = HERE,
    why: Annotated[str, typer.Option("--why", help="the reason, for the record")] = "",
    json: Json = False,
) -> None:
    """Undo a drop of the race: the pool stays in it to the end, from the next run on."""
    from app.commands.readmit import readmit, show_readmit

    put(readmit(folder, pool, why), json, show_readmit)


@app.command()
def chat(
    folder: Folder = HERE,
    question: Annotated[
        str | None, typer.Option("--ask", help="one question; left out: a conversation, one line a turn")
    ] = None,
    json: Json = False,
) -> None:
    """Ask the language model about the study. What it proposes is queued; it can run nothing."""
    from app.commands import chat as advising

    advising.chat(folder, question, json)


@app.command()
def mcp(
    folder: Folder = HERE,
    http: Annotated[
        bool,
        typer.Option("--http", help="at an address of this machine, with a token; left out: by standard streams"),
    ] = False,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="with --http: 8322 by default; 0: any that is free")
    ] = None,
) -> None:
    """Serve the study to coding agents (Model Context Protocol): they may read and propose, and decide nothing."""
    from app.commands.mcp import serve

    if port is not None and not http:
        raise typer.BadParameter("--port goes with --http")
    serve(folder, http, port)


@app.command()
def skill(
    out: Annotated[Path | None, typer.Option("--out", help="file to write; left out: standard output")] = None,
) -> None:
    """Write the skill file that tells coding agents how to use djsb, and what is left to a person."""
    from app.commands.mcp import skill

    write(skill(), out)
