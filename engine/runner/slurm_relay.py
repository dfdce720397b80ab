"""Runs in a job of Slurm: starts the workers of its slots there, and passes on what they and the engine say.

It travels by value and uses the standard library only. Each slot has a connection to the engine of its own, on which
both sides prove that they know the run's key. Where a connection ends its worker ends, and where the engine is not
there any more so does the job. A frame to the engine is a letter, the number of the worker's life and content.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

HELLO, OUTPUT, END, LEAVING = b"H", b"O", b"E", b"L"
HEAD = "!cI"  # letter, life
PATIENCE = 30.0  # seconds in which an engine that is not there is looked for
LONGEST = 1 << 26  # bytes of a frame
SHARED = "study, data and djsb must lie on a file system that all nodes see under the same path"
# Slurm sends its signals to every process of a job, and the worker is told by the engine what to do about them
DEAF = ["/bin/sh", "-c", 'trap "" TERM USR1 USR2; exec "$@"', "sh"]


class Link:
    """A connection between the engine and a slot, on which several threads may send. Its ends know a common key."""

    def __init__(self, end: socket.socket, key: bytes, first: bool) -> None:
        """first: this end asks first for a proof of the key. Raises: AuthenticationError, OSError, EOFError."""
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # it ends where the other machine is gone
        for name, value in (
            ("TCP_KEEPIDLE", 30),
            ("TCP_KEEPINTVL", 15),
            ("TCP_KEEPCNT", 5),
            ("TCP_USER_TIMEOUT", 120_000),
        ):
            if hasattr(socket, name):
                end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._socket, self._lock = end, threading.Lock()
        self._connection = Connection(os.dup(end.fileno()))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 10, 0))
        try:
            for asks in (first, not first):
                (deliver_challenge if asks else answer_challenge)(self._connection, key)
        except BaseException:
            self.close()
            raise
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))

    def send(self, frame: bytes) -> None:
        """Send a frame; where the connection has ended that is found by who receives."""
        with self._lock, suppress(OSError):
            self._connection.send_bytes(frame)

    def receive(self) -> bytes:
        """The next frame. Raises: OSError, EOFError at the connection's end."""
        return self._connection.recv_bytes(LONGEST)

    def close(self) -> None:
        """End it, for who receives as well."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Relay:
    """The job: called by submitit on the node."""

    def __init__(self, addresses: list[tuple[str, int]], key: bytes, uid: str, widths: list[int]) -> None:
        """addresses: of the engine, to be tried in turn. uid: of the submission. widths: devices of each slot."""
        self._addresses, self._key, self._uid, self._widths = addresses, key, uid, widths

    def __call__(self) -> None:
        """Serve until no slot is wanted any more."""
        self._lock = threading.Lock()
        self._links: list[Link] = []
        self._leaving = ""
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            why = "its job is taken away" if number == signal.SIGTERM else "its job's time ends"
            signal.signal(number, lambda *_, why=why: threading.Thread(target=self._leave, args=(why,)).start())
        signal.signal(signal.SIGCONT, signal.SIG_IGN)
        slots = [threading.Thread(target=self._slot, args=(at,), daemon=True) for at in range(len(self._widths))]
        for slot in slots:
            slot.start()
        for slot in slots:
            while slot.is_alive():  # signals arrive between two looks
                slot.join(0.2)

    def _leave(self, why: str) -> None:
        with self._lock:
            if self._leaving:
                return
            self._leaving = why
            links = list(self._links)
        print(f"leaving: {why}", flush=True)
        for link in links:
            link.send(struct.pack(HEAD, LEAVING, 0) + why.encode())

    def _slot(self, at: int) -> None:
        """Connect, serve, and connect again, until the engine lets the slot go or is not there any more."""
        while (link := self._connected()) is not None:
            worker = _Worker(link)
            try:
                link.send(struct.pack(HEAD, HELLO, 0) + json.dumps(self._hello(at), allow_nan=False).encode())
                with self._lock:
                    self._links.append(link)
                    leaving = self._leaving
                if leaving:
                    link.send(struct.pack(HEAD, LEAVING, 0) + leaving.encode())
                if not self._serve(link, worker, at):
                    return
            except (OSError, EOFError) as error:
                print(f"slot {at}: the engine's connection ended ({type(error).__name__})", flush=True)
            finally:
                worker.kill()
                with self._lock:
                    self._links = [other for other in self._links if other is not link]
                link.close()
            if self._leaving:
                return

    def _connected(self) -> Link | None:
        """A connection to the engine; None where it is not there."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for host, port in self._addresses:
                try:
                    end = socket.create_connection((host, port), 5)
                    end.settimeout(None)
                    return Link(end, self._key, first=False)
                except (OSError, EOFError, AuthenticationError) as error:  # unknown, refused, not the engine
                    why = f"{host}:{port}: {type(error).__name__}: {error}"
            time.sleep(1)
        print(f"the engine cannot be reached ({why})", flush=True)
        return None

    def _hello(self, at: int) -> dict[str, Any]:
        return {
            "uid": self._uid, "slot": at, "host": socket.gethostname(),
            "run": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
        }  # fmt: skip

    def _serve(self, link: Link, worker: _Worker, at: int) -> bool:
        """Do what the engine says; False when the slot is wanted no more."""
        while True:
            asked = json.loads(link.receive())
            if asked["do"] == "start":
                worker.start(asked, self._granted(at))
            elif asked["do"] == "line":
                worker.tell(asked["line"])
            elif asked["do"] == "kill":
                worker.kill()
            elif asked["do"] == "end":
                return False

    def _granted(self, at: int) -> dict[str, str]:
        """The slot's share of the GPUs that Slurm has granted the job."""
        granted = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        before = sum(self._widths[:at])
        own = granted[before : before + self._widths[at]]
        return {"CUDA_VISIBLE_DEVICES": ",".join(own)} if own else {}


class _Worker:
    """The worker of a slot, one after the other."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, asked: dict[str, Any], granted: dict[str, str]) -> None:
        """Start one as asked, with the devices granted."""
        self.kill()
        env = {**os.environ, **asked["env"], **(granted if asked["env"].get("CUDA_VISIBLE_DEVICES") else {})}
        log_file, life = Path(asked["log"]), asked["life"]
        if not log_file.parent.is_dir():
            self._say(END, life, f"{socket.gethostname()} does not see {log_file.parent}: {SHARED}".encode())
            return
        with log_file.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    [*DEAF, *asked["command"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env
                )
            except OSError as error:
                self._say(END, life, f"no start of {asked['command'][0]}: {error.strerror}; {SHARED}".encode())
                return
        threading.Thread(target=self._listen, args=(self._process, life), daemon=True).start()

    def _listen(self, process: subprocess.Popen[bytes], life: int) -> None:
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 1 << 16):
            self._say(OUTPUT, life, data)
        self._say(END, life, f"exit code {process.wait()}".encode())

    def _say(self, letter: bytes, life: int, content: bytes) -> None:
        self._link.send(struct.pack(HEAD, letter, life) + content)

    def tell(self, line: str) -> None:
        """Give the worker a line; one that has just died is found by its end."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(line.encode() + b"\n")
                self._process.stdin.flush()

    def kill(self) -> None:
        """End it and wait for it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
