"""Statistics that a language model gives (the llm_* OPs): Data-Juicer's own questions and its reading of the replies.

They are asked of the server that the study names, within its allowance of tokens, and of no other. What was asked once
is kept by its content: an equal text is never asked about twice.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.base.errors import OpError
from engine.base.ids import content_id
from engine.base.secrets import redact
from engine.data import datajuicer
from engine.data.dataset import Dataset
from engine.data.op_values import STATS, ChunkResult, Job, OpRun
from engine.journal import model_calls, scored
from engine.journal.model_calls import ModelCall
from engine.journal.scored import Scored
from engine.journal.store import Store
from engine.settings.scores import ScoresSection

CHUNK = 1_000
SERVER = "OPENAI_BASE_URL"
PURPOSE = "scores"  # of the calls in the journal
CHARACTERS = 3  # of a token, at least
REPLY = 150  # tokens of a usual reply
LOOK = 50  # rows whose questions are measured for the forecast
NOWHERE = {"base_url": "http://127.0.0.1:9", "api_key": "none"}  # of Data-Juicer's own client, which is never used


@dataclass(frozen=True)
class Forecast:
    """What an OP would ask. rows: that are in no cache of a column. tokens: about, read and written."""

    op: str
    rows: int
    tokens: int


def cannot_ask(settings: ScoresSection | None) -> str | None:
    """Why no language model scores rows here, with the remedy, or None."""
    if settings is None or settings.model is None:
        return "no language model is named for it; set scores.model and scores.tokens in study.yaml"
    if not settings.tokens:
        return "scores.tokens is 0, so nothing is asked; set it to the tokens that the scores may take"
    if importlib.util.find_spec("openai") is None:
        return "needs openai; pip install 'djsb[agent]'"
    if not (_server(settings) or os.environ.get(settings.key)):
        return f"no server is named for it; set scores.server, or the key {settings.key} in the environment"
    return None


def _server(settings: ScoresSection) -> str | None:
    return settings.server or os.environ.get(SERVER) or None


def forecast(run: OpRun, data: Dataset, good: NDArray[np.bool_]) -> Forecast:
    """What the OP would ask about all good rows, by the questions about the first of them. Asks nothing."""
    rows = np.flatnonzero(good)
    some = [_sample(row, run, data) for row in data.take(rows[:LOOK])]
    model = _Asked(run, ScoresSection())
    length = float(np.mean([model.length(row) for row in some])) if some else 0.0
    return Forecast(run.name, len(rows), round(len(rows) * (length / CHARACTERS + REPLY)))


def told(run: OpRun, data: Dataset, good: NDArray[np.bool_], settings: ScoresSection) -> str:
    """The forecast in one line."""
    ahead = forecast(run, data, good)
    where = redact(_server(settings) or "OpenAI")
    return (
        f"{run.name} asks {settings.model} at {where} about {ahead.rows} rows, about {ahead.tokens} tokens; "
        f"scores.tokens allows {settings.tokens} in all"
    )


def answers(
    jobs: Sequence[Job], settings: ScoresSection, store: Store, good: NDArray[np.bool_]
) -> Iterator[ChunkResult]:
    """Each chunk's values, asked for in this process. What was answered is kept before the next is asked.

    Raises: OpError when the allowance does not suffice, or the server does not answer.
    """
    for job in jobs:
        for run in job.runs:
            model = _model_of(run, settings, store)
            if not model.checked:
                model.check(forecast(run, job.data, good), store)
            yield model.chunk(job, store)


_models: dict[tuple[str, str], _Asked] = {}


def _model_of(run: OpRun, settings: ScoresSection, store: Store) -> _Asked:
    key = (run.key, settings.model_dump_json())
    return _models.setdefault(key, _Asked(run, settings))


def _sample(row: dict[str, Any], run: OpRun, data: Dataset) -> dict[str, Any]:
    """A row as the OP sees it."""
    return {**{name: row.get(name) for name in run.fields}, "text": row[data.fields.text or "text"]}


class _Asked:
    """An OP of Data-Juicer whose model is ours: it asks the study's server, counts tokens and remembers what failed."""

    def __init__(self, run: OpRun, settings: ScoresSection) -> None:
        self.run, self.settings = run, settings
        self.checked = False
        self.local = threading.local()
        self.op = datajuicer.load_op(run.name, {**dict(run.params), "model_params": NOWHERE, "try_num": 1})
        self.op.model_key = lambda **_: self
        self.client: Any = None

    def length(self, sample: dict[str, Any]) -> int:
        """Characters of the question about a row; nothing is sent."""
        self.local.dry, self.local.characters = True, 0
        self._stats(sample)
        self.local.dry = False
        return int(self.local.characters)

    def check(self, ahead: Forecast, store: Store) -> None:
        """Raises: OpError when the allowance is less than what is ahead; nothing was asked then."""
        used = self._used(store)
        if used + ahead.tokens > self.settings.tokens and not used:
            raise OpError(
                f"{self.run.name} would take about {ahead.tokens} tokens for {ahead.rows} rows and scores.tokens "
                f"allows {self.settings.tokens}; raise it, or take the OP out of ops"
            )
        self.checked = True

    def _used(self, store: Store) -> int:
        use = model_calls.total(store, scores=True)
        return use.read + use.written

    def chunk(self, job: Job, store: Store) -> ChunkResult:
        """A chunk's values: those that are kept, and the others by asking."""
        began = time.monotonic()
        rows = job.data.reader.read(job.start, job.stop)
        bad = set(job.bad.tolist())
        samples = {i: _sample(row, self.run, job.data) for i, row in enumerate(rows) if i not in bad}
        ids = {i: self._id(sample) for i, sample in samples.items()}
        found = scored.among(store, [*set(ids.values())])
        waiting = {ids[i]: sample for i, sample in samples.items() if ids[i] not in found}
        step = 4 * self.settings.parallel
        with ThreadPoolExecutor(self.settings.parallel) as pool:
            for at in range(0, len(waiting), step):
                found |= self._ask_some([*waiting.items()][at : at + step], pool, store)
        values = np.full((2, job.stop - job.start), np.nan)
        unreadable: list[tuple[int, str]] = []
        for i, name in ids.items():
            value = found[name].value
            if value is None:
                unreadable.append((job.start + i, (found[name].reason or "no score")[:300]))
            else:
                values[:, i] = round(value, 10)
        key = self.run.key
        return job.start, job.stop, {key: values}, {key: unreadable}, {key: time.monotonic() - began}

    def _id(self, sample: dict[str, Any]) -> str:
        parts = [
            self.run.name,
            self.run.params,
            self.settings.temperature,
            datajuicer.version(),
            sorted(sample.items()),
        ]
        return content_id(parts, 24)

    def _ask_some(
        self, some: Sequence[tuple[str, dict[str, Any]]], pool: ThreadPoolExecutor, store: Store
    ) -> dict[str, Scored]:
        """Answers to a few questions, kept and charged. Raises: OpError when one failed, once the others are kept."""
        ahead = sum(len(str(sample)) for _, sample in some) // CHARACTERS
        if (used := self._used(store)) + ahead > self.settings.tokens:
            raise OpError(
                f"{self.run.name}: scores have taken {used} of {self.settings.tokens} tokens; what was answered is "
                "kept; raise scores.tokens to go on"
            )
        began = time.monotonic()
        done = list(pool.map(lambda pair: self._one(*pair), some))
        kept = [answer for answer, *_ in done if answer is not None]
        read, written = sum(r for _, r, _, _ in done), sum(w for _, _, w, _ in done)
        failed = next((why for *_, why in done if why), None)
        with store.transaction():
            scored.put(store, kept)
            model_calls.add(store, ModelCall(
                self.run.key, PURPOSE, str(dict(self.run.params)["api_or_hf_model"]), read, written, False,
                round(time.monotonic() - began, 3), None, failed or f"{len(kept)} rows answered",
            ))  # fmt: skip
        if failed:
            raise OpError(f"{self.run.name}: {failed}; what was answered is kept, run the same command again")
        return {answer.id: answer for answer in kept}

    def _one(self, name: str, sample: dict[str, Any]) -> tuple[Scored | None, int, int, str | None]:
        """(answer, tokens read, tokens written, why there is none)."""
        local = self.local
        local.dry, local.read, local.written, local.failed, local.said = False, 0, 0, None, None
        stats = self._stats(sample)
        if local.failed:
            return None, local.read, local.written, local.failed
        value, reason = self._score(stats, local.said)
        return Scored(name, value, reason), local.read, local.written, None

    def _stats(self, sample: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self.op.compute_stats_single({**sample, STATS: {}})[STATS]
        return made

    def _score(self, stats: dict[str, Any], said: str | None) -> tuple[float | None, str | None]:
        """The statistic, or why the reply holds none: Data-Juicer itself counts such a reply as 0."""
        (statistic,) = self.run.statistics
        records = [value for name, value in stats.items() if name.endswith("_record")]
        if records and not records[0]:
            return None, f"the reply holds no scores: {(said or '')[:100]!r}"
        if not records and said is not None and said.strip().lower()[:1] not in ("y", "n"):
            return None, f"the reply is neither yes nor no: {said[:100]!r}"
        return float(stats[statistic]), None

    def __call__(self, messages: list[dict[str, str]], **options: Any) -> str:
        """What Data-Juicer calls as its model."""
        if getattr(self.local, "dry", False):
            self.local.characters += sum(len(m["content"]) for m in messages)
            return ""
        try:
            return self._send(messages, options)
        except Exception as error:  # a border: Data-Juicer would take any failure for a low score
            self.local.failed = redact(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
            return ""

    def _send(self, messages: list[dict[str, str]], options: dict[str, Any]) -> str:
        if self.settings.temperature is not None:
            options = {"temperature": self.settings.temperature, **options}
        reply = self._client().chat.completions.create(
            model=dict(self.run.params)["api_or_hf_model"], messages=messages,
            max_completion_tokens=self.settings.longest, **options,
        )  # fmt: skip
        text = (reply.choices[0].message.content if reply.choices else None) or ""
        usage = reply.usage
        asked = sum(len(m["content"]) for m in messages)
        self.local.read = usage.prompt_tokens if usage else asked // CHARACTERS
        self.local.written = usage.completion_tokens if usage else len(text) // CHARACTERS
        self.local.said = text
        return text

    def _client(self) -> Any:
        if self.client is None:
            import openai  # takes a second

            self.client = openai.OpenAI(
                base_url=_server(self.settings), api_key=os.environ.get(self.settings.key) or "none",
                timeout=self.settings.timeout, max_retries=2,
            )  # fmt: skip
        return self.client
