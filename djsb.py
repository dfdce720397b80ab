"""The console entry of djsb; workers start through it too (`python djsb.py worker`).

It puts its own directory first on `sys.path`, so that a user's `app.py`, `engine/` or `PYTHONPATH`
cannot shadow the packages that stand beside this file.
"""

import sys
from pathlib import Path

HOME = str(Path(__file__).resolve().parent)
sys.path[:] = [HOME, *(p for p in sys.path if p != HOME)]


def main() -> None:
    """Run the command line."""
    from app.cli import run

    run()


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        from engine.runner.worker import main as worker_main

        worker_main()
    elif sys.argv[1:2] == ["feed"]:  # the terminal UI's reader: folder, file descriptor of its pipe, file to record to
        from app.tui.feed import serve

        serve(Path(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:]))
    else:
        main()
