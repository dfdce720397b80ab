"""The command line. Results go to standard output, everything else to standard error.

Exit codes: 0 done · 1 error · 2 wrong usage · 3 a decision is awaited · 4 the budget ended the run early ·
130 interrupted (Ctrl-C, SIGTERM, SIGHUP). Heavy imports happen inside the commands, so that `djsb --help` is quick.
"""

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


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"djsb {version('djsb')}")
        raise typer.Exit


@app.callback()
def main(
    _version_flag: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and leave")
    ] = False,
) -> None:
    """Options of every command."""
    from engine.base import home, lifetime, scratch
    from engine.journal.store import Store

    Store.tell = staticmethod(_tell)
    lifetime.begin()
    folder = scratch.of_process()
    if not home.is_writable():
        home.use_instead(folder)


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
        _tell(note)
    typer.echo(str(file))


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
    _print(found, json, show_check)
    if found["problems"]:
        raise typer.Exit(1)


@app.command()
def doctor(folder: Folder = HERE, json: Json = False) -> None:
    """Show what this machine has, what each task and OP lacks here, and the command that gets it. Needs no study."""
    from app.commands.doctor import doctor, show_doctor

    found = doctor(folder)
    _print(found, json, show_doctor)
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
    _print(found, json, show_plan)


@app.command()
def pools(folder: Folder = HERE, json: Json = False, workers: Workers = None) -> None:
    """Compute the statistics and cut all single-OP pools; train nothing."""
    from app.commands.pools import pools, show_pools
    from app.text.progress import Display

    with Display() as display:
        found = pools(folder, workers, display.notice)
    _print(found, json, show_pools)


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
    _print(ending(folder, ended), json, show_ending)
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
        _print(graph, json, running.show_dry_run)
        if graph["problems"]:
            raise typer.Exit(1)
        return
    ended = start(
        config, root, budget=budget, workers=workers, allow_install=allow_install, again=again or (), tell=_tell
    )
    _print(running.ending(ended), json, running.show_ending)
    if ended.how == "budget":
        raise typer.Exit(4)


@app.command()
def status(folder: Folder = HERE, json: Json = False) -> None:
    """Show where the study stands: stages, running trials, budget, what awaits a decision."""
    from app.commands.status import show_status, status

    _print(status(folder), json, show_status)


@app.command()
def rank(
    folder: Folder = HERE,
    results: Annotated[
        Path | None, typer.Option("--from", help="CSV file with columns pool, seed, metric, value; needs no study")
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
    cycle: Annotated[
        int | None, typer.Option("--cycle", min=1, help="of a study with cycles: which; the last by default")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="with pools that were dropped by the race or left out")] = False,
    settings: Annotated[
        bool, typer.Option("--setting", help="results of other settings of study.yaml instead")
    ] = False,
    json: Json = False,
) -> None:
    """Print the study's answer, then the pools, best first, with intervals: a table for each size and length."""
    from app.commands import rank as look
    from app.commands import rank_file as recorded

    if results is None:
        if aggregate or lower or higher or confidence is not None:
            raise typer.BadParameter(
                "--aggregate, --lower, --higher and --confidence go with --from; a study has its own"
            )
        ranking = look.rank(folder, cycle, _tell, settings)
        if json:
            _print(ranking.rows, json, None)
        else:
            look.show_ranking(ranking, every)
    else:
        if confidence is not None and not 0.5 < confidence < 1:
            raise typer.BadParameter("--confidence lies between 0.5 and 1, e.g. 0.95")
        level = 0.95 if confidence is None else confidence
        found = recorded.rank(results, aggregate or "mean-of-changes", lower or [], level, higher or [], _tell)
        _print(found, json, look.show_rank)


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

    _print(one(folder, id_), json, show_one)


@app.command()
def log(
    folder: Folder = HERE,
    json: Json = False,
    last: Annotated[int, typer.Option("--last", min=1, help="how many entries")] = 50,
    job: Annotated[str | None, typer.Option("--job", help="PIPELINE.NAME: what this job of a pipeline said")] = None,
) -> None:
    """Print events and decisions, oldest first."""
    from app.commands.log import log, show_log

    _print(log(folder, last, job), json, show_log)


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
    _print(propose(folder, by, n, source), json, show_propose)


@app.command()
def proposals(
    folder: Folder = HERE,
    status_: Annotated[Status | None, typer.Option("--status", help="only those of one status")] = None,
    json: Json = False,
) -> None:
    """List proposals with origin, status, cost and reason, oldest first."""
    from app.commands import proposals as reviewing

    _print(reviewing.proposals(folder, status_), json, reviewing.show_proposals)


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
    _print(found, json, show_review)
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

    _print(readmit(folder, pool, why), json, show_readmit)


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

    _print(convert(source, target, vision, tokenizer, fps), json, show_converted)


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
def papers(
    query: Annotated[str, typer.Argument(metavar="[QUERY]", help="words of name, title or method; left out: all")] = "",
    tag: Annotated[
        str | None, typer.Option("--tag", help="only works with this tag, or that become this, e.g. Mixture, mapper")
    ] = None,
    json: Json = False,
) -> None:
    """Search works on data-model co-development: what a method does, needs, reports, and which proposal it becomes."""
    from app.commands.papers import papers, show_papers

    _print(papers(query, tag), json, show_papers)


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

    _write(skill(), out)


@export_app.command("recipe")
def export_recipe(
    folder: Folder = HERE,
    out: Annotated[Path | None, typer.Option("--out", help="file to write; left out: standard output")] = None,
    pool: Annotated[str | None, typer.Option("--pool", help="a pool's id; left out: the confirmed recipe")] = None,
) -> None:
    """Write a Data-Juicer recipe (YAML) that keeps the rows of a pool's slices."""
    from engine.evidence.recipe_file import recipe

    _write(recipe(folder, pool), out)


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
    _tell(f"{rows} rows written to {out}")


@export_app.command("results")
def export_results(
    folder: Folder = HERE,
    out: Annotated[Path | None, typer.Option("--out", help="file to write; left out: standard output")] = None,
    format_: Annotated[Literal["csv", "json"], typer.Option("--format")] = "csv",
) -> None:
    """Write every measured value: pool, seed, metric, value."""
    from app.commands import export

    _write(export.results(folder, format_), out)


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
    _print(done, json, say_fields)


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
    _print(made, json, say_fields)


@app.command()
def report(
    folder: Folder = HERE,
    out: Annotated[Path | None, typer.Option("--out", help="folder to write to; left out: DIR/report")] = None,
) -> None:
    """Write one self-contained HTML file with figures, and the figures as PNG."""
    from app.report.page import write_report

    typer.echo(str(write_report(folder, out)))


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
    _print(pool.made(found), json, pool.show_pools_made)


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
    _print(pool.made(found), json, pool.show_pools_made)


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
    _print(pool.made(found), json, pool.show_pools_made)


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
    _print(pool.made(found), json, pool.show_pools_made)


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

    _print(pool.ranked(pools, metrics, key or (), not ascending, top), json, pool.show_pools_made)


@pool_app.command("merge")
def pool_merge(pools: Pools, out: Into, numbers: Numbers = False, json: Json = False) -> None:
    """Write the rows of pools one after the other."""
    from app.commands import pool
    from engine.pools.join import merge

    found = merge(pools, out, "rows" if numbers else "jsonl")
    _print(pool.made([found]), json, pool.show_pools_made)


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

    _print(pool.made(join(pools, with_, out)), json, pool.show_pools_made)


@pool_app.command("write")
def pool_write(pools: Pools, json: Json = False) -> None:
    """Write the rows of pools of which only the row numbers are kept."""
    from app.commands import pool

    _print(pool.written(pools), json, pool.show_pools_made)


def _print(result: Any, as_json: bool, show_result: Any) -> None:
    """A result as JSON, or as people read it."""
    if as_json:
        from engine.base.ids import json_text

        typer.echo(json_text(result, indent=2))
    else:
        show_result(result)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text.encode(), nl=False)  # a file in UTF-8, whatever the terminal speaks
    else:
        out.write_text(text, encoding="utf-8")
        _tell(f"written to {out}")


def _tell(text: str) -> None:
    from app.text.printable import say

    say(text, err=True)


def run() -> None:
    """The program, within the process border."""
    from app.border import guarded

    guarded(app)
