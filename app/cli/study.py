"""A study from its making to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.shared import HERE, Approve, Folder, Json, Stage, Workers, app, put, tell


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder that the study is made in")],
    data: Annotated[
        Path, typer.Option("--data", help="file, folder, pattern or hf://datasets/OWNER/NAME, see docs/guides/data.md")
    ],
    evaluation: Annotated[Path | None, typer.Option("--eval", help="rows to judge on, never trained on")] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="what is trained, see docs/guides/tasks.md; left out: chosen by the data"),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="split of the data, where it has several")] = None,
    eval_split: Annotated[str | None, typer.Option("--eval-split", help="split of the rows to judge on")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a study.yaml that is there")] = False,
    no_timing: Annotated[
        bool, typer.Option("--no-timing", help="do not time a few steps to choose epochs and budget")
    ] = False,
) -> None:
    """Look at the data and write a commented study.yaml with the OPs that fit it, for half an hour on this machine."""
    from app.commands.init import write_study

    file, notes = write_study(folder, data, evaluation, task, force, split, eval_split, not no_timing)
    for note in notes:
        tell(note)
    typer.echo(str(file))


@app.command()
def plugins(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME…]", help="these alone, which are imported and checked")
    ] = None,
    json: Json = False,
) -> None:
    """List what installed packages add: tasks, components of pipelines, OPs, strategies, readers."""
    from app.commands.plugins import list_plugins, show_plugins

    found = list_plugins(names or ())
    put(found, json, show_plugins)
    if names and any(row["problem"] for row in found):
        raise typer.Exit(1)


@app.command()
def check(
    folder: Folder = HERE,
    json: Json = False,
    workers: Workers = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="decode all, and compare every byte of caches and checkpoints with its sum, about 1 GB/s"
        ),
    ] = False,
) -> None:
    """Validate study, data and OPs; scan for bad samples; say what is missing and how to get it."""
    from app.commands.check import check, show_check
    from app.text.progress import Display

    with Display() as display:
        found = check(folder, workers, display.notice, deep)
    put(found, json, show_check)
    if found["problems"]:
        raise typer.Exit(1)


@app.command()
def doctor(folder: Folder = HERE, json: Json = False) -> None:
    """Show what this machine has, what each task and OP lacks here, and the command that gets it. Needs no study."""
    from app.commands.doctor import doctor, show_doctor

    found = doctor(folder)
    put(found, json, show_doctor)
    if found["problems"]:
        raise typer.Exit(1)


@app.command()
def plan(
    folder: Folder = HERE,
    budget: Annotated[
        str | None, typer.Option("--budget", help="what this would buy: 8gpu-days, 6gpu-hours, 30min of device time")
    ] = None,
    json: Json = False,
    workers: Workers = None,
) -> None:
    """Show what the budget buys, disk, memory, time of the statistics, trials, before anything is spent."""
    from app.commands.plan import plan, show_plan
    from app.text.progress import Display

    with Display() as display:
        found = plan(folder, workers, display.notice, budget)
    put(found, json, show_plan)


@app.command()
def pools(folder: Folder = HERE, json: Json = False, workers: Workers = None) -> None:
    """Compute the statistics and cut all single-OP pools; train nothing."""
    from app.commands.pools import pools, show_pools
    from app.text.progress import Display

    with Display() as display:
        found = pools(folder, workers, display.notice)
    put(found, json, show_pools)


@app.command()
def auto(
    folder: Folder = HERE,
    demo: Annotated[
        bool, typer.Option("--demo", help="make a small demo study first (in djsb-demo or djsb-demo-TASK by default)")
    ] = False,
    task: Annotated[
        str | None, typer.Option("--task", help="with --demo: a task that has one, see docs/guides/tasks.md; or clip")
    ] = None,
    cycles: Annotated[int | None, typer.Option("--cycles", min=1, help="with --demo: cycles at most")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="8gpu-days, 6gpu-hours, 30min of device time")] = None,
    until: Annotated[Stage, typer.Option("--until", help="last stage to run")] = "confirm",
    approve: Annotated[
        Approve | None, typer.Option("--approve", help="auto, or hold every proposal for a person")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="search even if the budget cannot end in a confirmed answer")
    ] = False,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Run the loop within the budget. The same command goes on where it ended."""
    from app.commands.auto import ending, run, show_ending
    from engine.base.errors import TrialError

    if task is not None and not demo:
        raise typer.BadParameter("--task goes with --demo; a study names its own")
    if cycles is not None and not demo:
        raise typer.BadParameter("--cycles goes with --demo; a study has cycles: N in its study.yaml")
    if demo:
        from app.commands.init import DEMO, check_cycles, write_demo

        task = task or DEMO
        usual = Path("djsb-demo" if task == DEMO else f"djsb-demo-{task}")
        change = {} if cycles is None else {"cycles": cycles}
        folder = write_demo(usual if folder == HERE else folder, task, change)
        if cycles is not None:
            check_cycles(folder, cycles)
    ended = run(folder, budget, until, approve, workers, anyway)
    put(ending(folder, ended), json, show_ending)
    if ended.how == "failed":
        raise TrialError(ended.note)
    if ended.how != "done":
        raise typer.Exit(4 if ended.how == "budget" else 130)
    if ended.awaiting:
        raise typer.Exit(3)


@app.command("run")
def run_pipeline(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="configuration of Data-Juicer Sandbox, YAML")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check it, print the graph, run nothing")] = False,
    root: Annotated[
        Path, typer.Option("--root", help="folder that relative paths start from", show_default="this folder")
    ] = HERE,
    budget: Annotated[str | None, typer.Option("--budget", help="device time that may be spent in all, as 2h")] = None,
    again: Annotated[
        list[str] | None, typer.Option("--again", help="PIPELINE.NAME to run anew, with all that needs it; repeatable")
    ] = None,
    allow_install: Annotated[
        bool, typer.Option("--allow-install", help="let trainers make their environments; each command is shown first")
    ] = False,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Run a pipeline of Data-Juicer Sandbox, job after job. The same command goes on where it ended."""
    from app.commands import run as running
    from engine.pipeline.start import start

    if dry_run:
        graph = running.dry_run(config, root)
        put(graph, json, running.show_dry_run)
        if graph["problems"]:
            raise typer.Exit(1)
        return
    ended = start(
        config, root, budget=budget, workers=workers, allow_install=allow_install, again=again or (), tell=tell
    )
    put(running.ending(ended), json, running.show_ending)
    if ended.how == "budget":
        raise typer.Exit(4)


@app.command()
def track(
    folder: Folder = HERE,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to", help="mlflow, wandb, trackio or tensorboard; repeatable; left out: those that study.yaml names"
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", help="its project or experiment; left out: the study's name")
    ] = None,
    uri: Annotated[
        str | None, typer.Option("--uri", help="MLflow's store, as MLFLOW_TRACKING_URI; left out: in the study")
    ] = None,
    json: Json = False,
) -> None:
    """Export trials, curves, leaderboard and answer to trackers; what they have already is not sent again."""
    from app.commands.track import show_track
    from app.commands.track import track as export
    from engine.settings.track import KINDS

    if unknown := [name for name in to or () if name not in KINDS]:
        raise typer.BadParameter(f"--to {unknown[0]}: choose from {', '.join(KINDS)}")
    found = export(folder, [kind for kind in KINDS if kind in (to or ())], project, uri)
    put(found, json, show_track)
    if any(one["faults"] for one in found):
        raise typer.Exit(1)


@app.command()
def status(folder: Folder = HERE, json: Json = False) -> None:
    """Show where the study stands: stages, running trials, budget, what awaits a decision."""
    from app.commands.status import show_status, status

    put(status(folder), json, show_status)
