"""Being told: a program of the user's or a webhook hears of what happens while nobody looks. No trial waits for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from datetime import UTC, datetime

from engine.base.amounts import format_seconds
from engine.base.environment import passed
from engine.base.errors import Awaited
from engine.base.ids import json_text
from engine.base.secrets import redact
from engine.evidence.answer import answer
from engine.journal import events, results
from engine.loop.beside import Faults, after_events
from engine.runner.scheduler import Scheduler
from engine.settings.running import NotifySection, Occasion
from engine.study.opened import OpenStudy

NEARLY = 0.8  # share of the budget
ONCE = ("confirmed", "budget")  # said once in the life of a study, as long as they say the same
LONGEST = 1_000  # characters of a notice


class Notices:
    """What is told of one study. Notices are sent one after the other, beside the engine's own thread."""

    def __init__(self, opened: OpenStudy) -> None:
        self._opened, self._settings = opened, opened.study.notify
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="notices") if _is_set(self._settings) else None
        self._sent: list[Future[None]] = []
        self._faults = Faults(opened.store, "notify", "a notice was not sent")

    def tell(self, occasion: Occasion, text: str) -> None:
        """Send a notice, where the study asks for those of its kind."""
        store, text = self._opened.store, redact(" ".join(text.split()))[:LONGEST]
        if self._thread is None or occasion not in self._settings.on:
            return
        if occasion in ONCE and events.is_told(store, "notified", occasion, text):
            return
        store.event("notified", text, occasion)
        notice = {
            "study": self._opened.folder.resolve().name, "folder": str(self._opened.folder.resolve()),
            "occasion": occasion, "text": text, "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        self._sent.append(self._thread.submit(self._send, notice))

    def watch(self, scheduler: Scheduler) -> None:
        """Tell once, now or after any of the scheduler's events, that the budget is nearly spent."""

        def look(now: Scheduler) -> None:
            if now.balance().spent >= NEARLY * now.limit:
                self.tell("budget", f"{NEARLY:.0%} of the budget of {format_seconds(now.limit)} is spent")

        if self._thread is not None and "budget" in self._settings.on:
            after_events(scheduler, look)

    def close(self) -> None:
        """Wait for what is under way, as long as one notice may take; what failed is an event."""
        if self._thread is not None:
            late = wait_for(self._sent, timeout=self._settings.timeout + 1).not_done
            self._thread.shutdown(wait=False, cancel_futures=True)
            for _ in late:
                self._faults.put(f"it took longer than {self._settings.timeout:g} s")
        self._faults.write()

    def _send(self, notice: dict[str, str]) -> None:
        """Hand a notice to the program and to the webhook. Runs in the thread, which has no database."""
        text = json_text(notice)
        if self._settings.command:
            self._run(notice, text)
        if address := self._settings.webhook or os.environ.get(self._settings.webhook_from or ""):
            self._post(address, text)
        elif self._settings.webhook_from:
            self._faults.put(f"notify.webhook_from: {self._settings.webhook_from} is not set")

    def _run(self, notice: dict[str, str], text: str) -> None:
        told = {f"DJSB_NOTICE_{name.upper()}": value for name, value in notice.items()}
        try:
            ran = subprocess.run(
                self._settings.command, input=text.encode(), env={**passed(more=self._settings.env), **told},
                cwd=self._opened.folder, capture_output=True, timeout=self._settings.timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self._faults.put(f"{self._settings.command[0]} took longer than {self._settings.timeout:g} s")
        except OSError as error:
            self._faults.put(f"{self._settings.command[0]}: {error.strerror}; check notify.command")
        else:
            if ran.returncode:
                said = ran.stderr.decode(errors="replace").strip().splitlines()[-1:]
                self._faults.put(f"{self._settings.command[0]} ended with {ran.returncode}: {redact(''.join(said))}")

    def _post(self, address: str, text: str) -> None:
        import requests  # start-up time: most studies have no webhook

        where = address.split("/")[2]  # the rest of an address may be a key
        try:
            answered = requests.post(
                address, data=text.encode(), headers={"Content-Type": "application/json"},
                timeout=self._settings.timeout, allow_redirects=False,
            )  # fmt: skip
        except requests.RequestException as error:
            self._faults.put(f"{where} cannot be reached ({type(error).__name__}); check notify.webhook")
        else:
            if answered.status_code >= 300:
                self._faults.put(f"{where} answered {answered.status_code}; check notify.webhook")


def _is_set(settings: NotifySection) -> bool:
    return bool(settings.command or settings.webhook or settings.webhook_from)


@contextmanager
def notices(opened: OpenStudy) -> Iterator[Notices]:
    """The study's notices while it runs. A run that a person has to help is told before its error goes on."""
    sent = Notices(opened)
    try:
        yield sent
    except Awaited as awaited:
        sent.tell("approval", str(awaited))
        raise
    except Exception as error:
        sent.tell("failed", str(error) or type(error).__name__)
        raise
    finally:
        sent.close()


def tell_ending(sent: Notices, opened: OpenStudy, how: str, note: str, awaiting: int) -> None:
    """Tell how a run ended, as `Ended` says it, and of a recipe that it has confirmed."""
    said = answer(opened)
    if results.RECIPE.get(opened.store, opened.setup) is not None:
        sent.tell("confirmed", said.text)
    if awaiting:
        sent.tell("approval", f"{awaiting} proposal(s) await a decision: djsb review")
    if how == "failed":
        sent.tell("failed", note)
    elif how != "stopped":
        sent.tell("ended", f"{said.text} {note}")
