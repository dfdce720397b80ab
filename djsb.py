"""The console entry of djsb; its worker processes start through this file too (`python djsb.py worker`).

A wheel holds this file as the package's `__init__.py` and `__main__.py`, with app, agent and engine beside it. A djsb
process puts their folder first on `sys.path`: no `app.py`, `engine/` or `PYTHONPATH` of a user comes before them.
`import djsb` alone changes nothing.
"""

import sys
from pathlib import Path

HOME = str(Path(__file__).resolve().parent)


def main() -> None:
    """Run the command line."""
    _home_first()
    from app.cli import run

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
    elif sys.argv[1:2] == ["feed"]:  # the UI's reader: folder, file descriptor of its pipe, file to record to
        _home_first()
        from app.tui.feed import serve

        serve(Path(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:]))
    else:
        main()
