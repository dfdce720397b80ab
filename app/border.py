"""The process border: every error ends in one line and an exit code, every signal as Ctrl-C does."""

from __future__ import annotations

import errno
import io
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

from app.text.printable import say
from engine.base.errors import DjsbError
from engine.base.installed import remedy
from engine.base.secrets import redact

INTERRUPTED = "interrupted; the same command goes on"
RUST = re.compile(r"\(os error (\d+)\)$")  # how tokenizers and safetensors tell an error of the system
_interrupted: list[int] = []  # signals that have come


def guarded(program: Callable[[], object]) -> None:
    """Run a program; it ends by SystemExit, whatever goes wrong."""
    _heed_signals()
    _speak_any_encoding()
    try:
        program()
    except DjsbError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        _fail(INTERRUPTED, 130)
    except SystemExit as end:
        if end.code == 130 and _interrupted:  # typer has caught the interrupt, and says nothing
            _fail(INTERRUPTED, 130)
        raise
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}; {_remedy(error)}", 1)
    except MemoryError:
        _fail("out of memory; lower --workers, train.micro_batch or pools.size", 1)
    except ModuleNotFoundError as error:
        if command := remedy(error.name or ""):
            _fail(f"this needs the package {error.name}: {command}", 1)
        _crash(error)
    except Exception as error:  # the border itself: never a traceback on the screen
        if number := RUST.search(str(error)):
            _fail(f"{error}; {_remedy(OSError(int(number[1]), ''))}", 1)
        _crash(error)


def _heed_signals() -> None:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does: its children and scratch go with it."""

    def interrupt(number: int, _frame: object) -> None:
        _interrupted.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has SIGHUP
            signal.signal(number, interrupt)


def _speak_any_encoding() -> None:
    """A terminal that lacks a letter shows `?` for it; what is piped in is UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8")


def _remedy(error: OSError) -> str:
    return {
        errno.ENOSPC: "the disk is full: free some space and run the same command again; nothing is lost",
        errno.EDQUOT: "the quota is used up: free some space and run the same command again; nothing is lost",
        errno.EFBIG: "the file would be too large: free some space or raise the limit; nothing is lost",
        errno.EROFS: "the disk is read-only: make it writable, or copy the study elsewhere",
        errno.EACCES: "no permission: make it writable, or copy the study elsewhere",
        errno.ENOENT: "no such file: check the path",
    }.get(error.errno or 0, "check the path, the disk and the permissions")


def _crash(error: Exception) -> None:
    _fail(f"internal error: {type(error).__name__}: {error} (traceback in {_crash_file()}); please report it", 1)


def _crash_file() -> str:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="djsb-crash-", suffix=".log", delete=False) as file:
        file.write(redact(traceback.format_exc()))
    return file.name


def _fail(text: str, code: int) -> None:
    say("djsb: " + redact(" ".join(text.split())), err=True)
    sys.exit(code)
