"""The console entry of djsb; workers start through it too (`python djsb.py worker`).

A wheel holds this file as the package's `__init__.py` and `__main__.py`, with app, agent and engine beside it. A djsb
process puts their folder first on `sys.path`: no `app.py`, `engine/` or `PYTHONPATH` of a user comes before them.
`import djsb` alone changes nothing.
"""

import sys
from pathlib import Path

HOME = str(Path(__file__).resolve().parent)


def main() -> None:
    """Run the command line, a worker, or the process that reads for the terminal UI."""
    sys.path[:] = [HOME, *(p for p in sys.path if p != HOME)]
    if sys.argv[1:] == ["worker"]:
        from engine.runner.worker import main as worker_main

        worker_main()
    elif sys.argv[1:2] == ["feed"]:  # folder, file descriptor of its pipe, file to record to
        from app.tui.feed import serve

        serve(Path(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:]))
    else:
        from app.cli import run

        run()


if __name__ == "__main__":
    main()
