"""The console entry of djsb; its worker processes start through this file too (`python djsb.py worker`).

A wheel holds this file as the package's `__init__.py` and `__main__.py`, with app, agent and engine beside it. A djsb
process puts their folder first on `sys.path`: no `app.py`, `engine/` or `PYTHONPATH` of a user comes before them.
`import djsb` alone changes nothing; the first name that is asked of it (`djsb.open_study`) puts the folder last there.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.api import Answer, Awaited, Ended, Entry, Error, Leaderboard, Study, init, open_study

HOME = str(Path(__file__).resolve().parent)
__all__ = ["Answer", "Awaited", "Ended", "Entry", "Error", "Leaderboard", "Study", "init", "open_study"]
CONTRACTS = {  # what plug-ins are written with (docs/guides/plugins.md), by the module that has it
    "engine.tasks.contract": ("Job", "Kept", "Report", "Rows", "Task", "Traits"),
    "engine.tasks.shared.caches": ("make_caches",),
    "engine.records.metric": ("Metric",),
    "engine.pipeline.contract": ("Component", "ComponentError", "Context", "Done", "Draft", "Group", "Takes"),
    "engine.data.ops.contract": ("Bounds", "Op"),
    "engine.search.contract": ("Proposer",),
    "engine.search.grid": ("Paper",),
    "engine.records.proposal": ("Arm", "Proposal"),
    "engine.proposals.arms": ("control", "ended", "request"),
    "engine.data.readers.contract": ("BROKEN", "BrokenFile", "FileReader", "Options"),
}


def __getattr__(name: str) -> Any:
    """The names of app/api.py, and those of plug-ins. Raises: ImportError where a user's module is in the way."""
    place = "app.api" if name in __all__ else next((m for m, names in CONTRACTS.items() if name in names), None)
    if place is None:
        raise AttributeError(f"module 'djsb' has no attribute {name!r}")
    if HOME not in sys.path:
        sys.path.append(HOME)
    for mine in ("app", "agent", "engine"):
        _own(mine)
    return getattr(import_module(place), name)


def _own(name: str) -> None:
    """Raises: ImportError where a module of djsb's would be a user's of that name."""
    from importlib.util import find_spec

    spec = find_spec(name)
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    place = next(filter(None, places), None)
    if place is None or Path(HOME) not in Path(place).resolve().parents:
        raise ImportError(f"djsb needs its own module {name}, and {place} is before it; start Python in another folder")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *(name for names in CONTRACTS.values() for name in names)])


def main() -> None:
    """Run the command line."""
    _home_first()
    from app.cli.main import run

    run()


def _home_first() -> None:
    sys.path[:] = [HOME, *(p for p in sys.path if p != HOME)]


if (
    __name__ == "__main__"
):  # the console command calls main(): `djsb worker` is a usage error, `python djsb.py worker` works
    if sys.argv[1:] == ["worker"]:
        _home_first()
        from engine.runner.worker import main as worker_main

        worker_main()
    elif sys.argv[1:] == ["job"]:  # of a pipeline
        _home_first()
        from engine.pipeline.child import main as job_main

        job_main()
    elif sys.argv[1:] == ["exporter"]:  # to a tracker
        _home_first()
        from engine.track.process import serve as export

        export()
    elif sys.argv[1:2] == ["feed"]:  # the UI's reader: folder, file descriptor of its pipe, file to record to
        _home_first()
        from app.tui.feed import serve

        serve(Path(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:]))
    else:
        main()
