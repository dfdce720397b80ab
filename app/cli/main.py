"""The command line. Results go to standard output, everything else to standard error.

Exit codes: 0 done · 1 error · 2 wrong usage · 3 a decision is awaited · 4 the budget ended the run early ·
130 interrupted (Ctrl-C, SIGTERM, SIGHUP). Heavy imports happen inside the commands, so that `djsb --help` is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli import data, decisions, looks, pools, study
from app.cli.shared import app, tell

IN_HELP = (study, looks, decisions, data, pools)  # whose commands stand first
NEED_ENGINE = {"init", "check", "plan", "pools", "auto", "run", "convert", "apply", "publish", "pool"}
app.registered_commands.sort(key=lambda c: [m.__name__ for m in IN_HELP].index(getattr(c.callback, "__module__", "")))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"djsb {version('djsb')}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    _version_flag: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and leave")
    ] = False,
) -> None:
    """Options of every command."""
    from engine.base import home, installed, lifetime, scratch
    from engine.journal.store import Store

    Store.tell = staticmethod(tell)
    lifetime.begin()
    folder = scratch.of_process()
    if not home.is_writable():
        home.use_instead(folder)
    if context.invoked_subcommand in NEED_ENGINE and "--help" not in sys.argv:
        installed.need_engine(f"djsb {context.invoked_subcommand}")


def run() -> None:
    """The program, within the process border."""
    from app.border import guarded

    guarded(app)
