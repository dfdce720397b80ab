"""Commands and workers that start at once: forked from one process that has imported what they import.

A worker's imports take about ten seconds of a core, those of `djsb auto` about five; there are hundreds of starts in
the tests. What is forked is a process like any other: its own environment, folder, signals and exit code. Only the
start is another, so the tests of starting, killing, installing and isolating start theirs from the file (`DJSB`).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import IO, Any, NoReturn

from engine.base.environment import passed

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = (
    "app.cli.main", "app.commands.auto", "app.report.page", "app.report.figures", "app.tui.feed",
    "engine.runner.worker", "engine.loop.run",
    "engine.tasks.clip.packed", "engine.tasks.clip.task", "engine.tasks.lm.task", "engine.tasks.vlm.task",
    "engine.tasks.caption.task", "engine.tasks.command.task", "engine.tasks.t2v.task", "engine.data.warm",
    "matplotlib.figure", "optuna", "scipy.cluster.hierarchy", "scipy.special", "scipy.stats", "torch._dynamo",
    "transformers.models.clip.modeling_clip", "transformers.models.llama.modeling_llama",
    "transformers.models.llava.modeling_llava", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)  # fmt: skip

MODELS = ["torch._dynamo", "transformers.models.clip.modeling_clip"]  # what data workers import for OPs with models
ONE_THREAD = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


class Forked:
    """A forked process, with what its starter asks of a `subprocess.Popen`."""

    def __init__(
        self, nursery: Path, what: list[str], files: tuple[int, ...], env: Mapping[str, str], cwd: Path | None
    ) -> None:
        """what: the arguments of `djsb`, or those of `djsb.py worker` and `djsb.py feed`.

        files: its standard input, output and error, and descriptor 3.
        """
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(str(nursery))
        message = json.dumps({"what": what, "env": dict(env), "cwd": str(cwd or Path.cwd())}).encode()
        socket.send_fds(self._line, [len(message).to_bytes(8)], files)
        self._line.sendall(message)
        self._news = self._line.makefile()
        self.pid, self.returncode = int(self._news.readline()), None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None

    returncode: int | None

    def poll(self) -> int | None:
        """The exit code once it has ended, negative for a signal."""
        if self.returncode is None and select.select([self._line], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises: subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("djsb", timeout or 0)
            self.returncode = int(self._news.readline() or -signal.SIGKILL)
            self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal while it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and the news of it is on its way
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks, of this run of the tests: the first of the tests' processes to need it starts it."""

    def __init__(self) -> None:
        self.folder = Path()  # shared by the tests' processes
        self._owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()  # the nursery ends with it
        self._socket: Path | None = None

    def socket(self) -> Path:
        """Where it listens, once it does."""
        if self._socket is None:
            with (self.folder / "nursery.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                note = self.folder / "nursery.socket"
                if not note.exists():
                    note.write_text(self._start())
                self._socket = Path(note.read_text())
        return self._socket

    def _start(self) -> str:
        address = Path(tempfile.mkdtemp(prefix="djsb-")) / "s"  # a socket's path is short
        started = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", str(address), str(self._owner)], cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=(self.folder / "nursery.log").open("w"), stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD}, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 300
        while not address.exists():
            failed = started.poll() is not None or time.monotonic() > deadline
            assert not failed, (self.folder / "nursery.log").read_text()
            time.sleep(0.05)
        return str(address)

    def worker(self, env: Mapping[str, str], log: IO[bytes]) -> Forked:
        """A worker, in place of `engine.runner.local.launch`."""
        return _worker(self.socket(), env, log)

    def feed(self, folder: Path, descriptor: int, record: Path | None) -> Forked:
        """The UI's reader, in place of `app.tui.feed.launch`."""
        with Path(os.devnull).open("r+", encoding="utf-8") as nothing:
            files = (nothing.fileno(), nothing.fileno(), nothing.fileno(), descriptor)
            what = ["feed", str(folder), *([str(record)] if record else [])]
            return Forked(self.socket(), what, files, passed(), None)

    def share_data_workers(self) -> None:
        """Let this process have its data workers from the nursery's server: it has imported the models' libraries."""

        def ensure_running() -> None:
            if server._forkserver_address is None:
                server._forkserver_address = self.socket().with_name("data").read_text()
                server._forkserver_alive_fd = os.open(os.devnull, os.O_WRONLY)

        server = forkserver._forkserver
        forkserver.ensure_running = server.ensure_running = ensure_running

    def run(
        self, args: list[str], cwd: Path | None, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `djsb` to its end."""
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            Path(os.devnull).open(encoding="utf-8") as nothing,
        ):
            process = Forked(self.socket(), args, (nothing.fileno(), out.fileno(), err.fileno()), env, cwd)
            try:
                code = process.wait(timeout)
            finally:
                process.kill()
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode("utf-8"))
        return subprocess.CompletedProcess(["djsb", *args], code, *texts)


def _worker(nursery: Path, env: Mapping[str, str], log: IO[bytes]) -> Forked:
    (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
    process = Forked(nursery, ["worker"], (read_in, write_out, log.fileno()), env, None)
    os.close(read_in)
    os.close(write_out)
    process.stdin, process.stdout = os.fdopen(write_in, "wb"), os.fdopen(read_out, "rb")
    return process


def _serve(address: Path, owner: Path) -> None:
    """Fork what is asked for, while the owner lives."""
    listener = socket.socket(socket.AF_UNIX)
    scratch = address.with_name("starting")
    listener.bind(str(scratch))
    listener.listen(64)
    scratch.rename(address)
    while owner.exists():
        if not select.select([listener], [], [], 1)[0]:
            continue
        line, _ = listener.accept()
        head, files, _, _ = socket.recv_fds(line, 8, 4)
        left, parts = int.from_bytes(head), []
        while left:
            parts.append(line.recv(left))
            left -= len(parts[-1])
        if os.fork() == 0:
            listener.close()
            _watch(line, files, json.loads(b"".join(parts)), address)
        line.close()
        for file in files:
            os.close(file)


def _watch(line: socket.socket, files: list[int], message: dict[str, Any], address: Path) -> NoReturn:
    """Fork the process, say its id, then its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (child := os.fork()) == 0:
        line.close()
        _become(files, message, address)
    for file in files:
        os.close(file)
    line.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    try:
        line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    finally:
        os._exit(0)


def _become(files: list[int], message: dict[str, Any], address: Path) -> NoReturn:
    """Be that process to its end."""
    import atexit
    import threading
    import traceback

    from engine.runner import local

    os.setsid()
    for number, file in enumerate(files):
        if file != number:
            os.dup2(file, number)
            os.close(file)
    os.environ.clear()
    os.environ.update(message["env"])
    os.chdir(message["cwd"])
    sys.path[1:1] = [p for p in message["env"].get("PYTHONPATH", "").split(os.pathsep) if p]
    local.launch = lambda env, log: _worker(address, env, log)
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None  # it is the nursery's
    sys.argv = ["djsb", *message["what"]]
    code: Any = 0
    try:
        _run(message["what"])
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    os._exit(code)


def _run(what: list[str]) -> None:
    """As `djsb.py` does."""
    if what == ["worker"]:
        from engine.runner.worker import main

        main()
    elif what[0] == "feed":
        from app.tui.feed import serve

        serve(Path(what[1]), 3, *map(Path, what[2:]))
    else:
        from app.cli.main import run

        run()


def main() -> None:
    """Import everything, then serve."""
    import gc
    from importlib import import_module

    from engine.base import parallel

    parallel.PRELOAD += MODELS
    parallel.warm_up()  # it imports in a process of its own meanwhile
    Path(sys.argv[1]).with_name("data").write_text(str(forkserver._forkserver._forkserver_address))
    gc.disable()
    for name in IMPORTS:
        import_module(name)
    import torch
    import transformers

    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    for name in ("CLIPConfig", "CLIPModel", "LlamaForCausalLM", "LlavaForConditionalGeneration", "AutoTokenizer"):
        getattr(transformers, name)
    gc.freeze()
    gc.enable()
    threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    assert len([t for t in threads if t != "jemalloc_bg_thd"]) == 1, f"a fork could hang: {threads}"  # it knows forks
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _serve(Path(sys.argv[1]), Path("/proc") / sys.argv[2])
    shutil.rmtree(Path(sys.argv[1]).parent)


if __name__ == "__main__":
    main()
