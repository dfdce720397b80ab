"""`djsb tui --record FILE`: what the feed sends, over time, as a file; and such a file read back.

JSON lines in gzip. The first line is a header; then come blocks, each a gzip member of its own that begins with a whole
snapshot and goes on with what changed. Each line is flushed, so a recorder that is killed leaves a readable file. A
file may come from anywhere: every line is checked (app/tui/recording/shape.py), and sizes are bounded.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from app.tui.reading.snapshot import Snapshot
from app.tui.recording.shape import FRAME, HEADER, LARGEST, LONGEST, Frame, Header, Results, Whole
from engine.base.errors import DjsbError
from engine.base.ids import json_text
from engine.base.secrets import redact
from engine.journal.store import Row

VERSION = 1
EVERY = 1.0  # seconds at least between two snapshots
KEYS = {"trials": "id", "proposals": "id", "decisions": "id", "events": "id", "board": "pool"}  # long lists of rows
NAMES = tuple(Whole.__annotations__)
LATER: Row = {"pipelines": []}  # fields that recordings of before lack, with what they had
TUPLES = {f.name for f in fields(Snapshot) if "tuple" in str(f.type)}
LINE = 16 * 2**20  # bytes of a line
BLOCK = 3 * LINE  # bytes of a block, unpacked
TOTAL = 2 * 2**30  # bytes of all blocks, unpacked
FRAMES = 1_000_000
BLOCK_FRAMES = 200
State = dict[str, Any]


class RecordingError(DjsbError):
    """A file is no recording, or cannot be written."""


class Recorder:
    """Writes snapshots to a file, one a second at most. Raises: RecordingError when it cannot go on.

    secrets: names and values of the keys that must not get into it.
    """

    def __init__(self, file: Path, secrets: Mapping[str, str]) -> None:
        self.path, self.frames, self.secrets = file, 0, secrets
        try:
            self._out: BinaryIO = file.open("wb")
        except OSError as error:
            raise RecordingError(f"{file}: {error.strerror}") from error
        self._last: State | None = None
        self._waits: Snapshot | None = None
        self._began: float | None = None
        self._wrote = -EVERY
        self._packer: Any = None
        self._in_block = self._key_size = self._diff_size = self._total = 0

    def take(self, snapshot: Snapshot) -> None:
        """Write a snapshot, now or with the next `tick`."""
        self._waits = snapshot
        self.tick()

    def tick(self, force: bool = False) -> None:
        """Write what waits, where it is time."""
        now = time.monotonic()
        if self._waits is None or (now - self._wrote < EVERY and not force):
            return
        snapshot, self._waits, self._wrote = self._waits, None, now
        try:
            self._began = now if self._began is None else self._began
            self._put(snapshot, now - self._began)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Write what waits and end the file."""
        self.tick(force=True)
        try:
            self._end_block()
            self._out.close()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> RecordingError:
        return RecordingError(f"{self.path}: {error.strerror}; the recording ends here")

    def _put(self, snapshot: Snapshot, t: float) -> None:
        state = {name: _listed(getattr(snapshot, name)) for name in NAMES}
        frame: Row = {"t": round(t, 3)}
        if self.frames == 0:
            made = datetime.now(UTC).isoformat(timespec="milliseconds")
            head = {
                "djsb": "recording",
                "version": VERSION,
                "made": made,
                "by": version("djsb"),
                "study": state["name"],
            }
            self._write(json_text(self._clean(head), ensure_ascii=False), HEADER)
        key = self._last is None or self._in_block >= BLOCK_FRAMES or self._diff_size > self._key_size + 2**16
        if key or self._last is None:
            self._end_block()
            frame |= {"key": True, "set": state}
        else:
            frame |= difference(self._last, state)
            if len(frame) == 1:
                return
        size = self._write(json_text(self._clean(frame), ensure_ascii=False, separators=(",", ":")), FRAME)
        self._key_size, self._diff_size = (size, 0) if key else (self._key_size, self._diff_size + size)
        self._in_block = self._in_block + 1
        self._last, self.frames = state, self.frames + 1

    def _write(self, line: str, shape: Any) -> int:
        """One line, which must be one that can be read back; its size in bytes."""
        raw = line.encode()
        self._total += len(raw) + 1
        if len(raw) >= LINE or self._total > TOTAL or self.frames >= FRAMES:
            raise RecordingError(f"{self.path}: the study is too large to record any further; the recording ends here")
        try:
            shape.validate_json(raw)
        except ValidationError as error:
            raise RecordingError(f"{self.path}: cannot be recorded: {_first(error)}; report it as a defect") from error
        if self._packer is None:
            self._packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        self._out.write(self._packer.compress(raw + b"\n") + self._packer.flush(zlib.Z_SYNC_FLUSH))
        self._out.flush()
        return len(raw)

    def _end_block(self) -> None:
        if self._packer is not None:
            self._out.write(self._packer.flush(zlib.Z_FINISH))
            self._out.flush()
        self._packer, self._in_block = None, 0

    def _clean(self, value: Any) -> Any:
        """The value without keys of the environment, within the bounds of the file."""
        if isinstance(value, str):
            return redact(value, self.secrets)[:LONGEST]
        if isinstance(value, dict):
            return {self._clean(k): self._clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(v) for v in value]
        if isinstance(value, float) and not (math.isfinite(value) and abs(value) <= LARGEST):
            return None
        return value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def difference(old: State, new: State) -> Row:
    """What a frame says of `new` after `old`: fields as a whole, long lists by the rows that go and come."""
    whole, rows = {}, {}
    for name in NAMES:
        if old[name] != new[name]:
            change = _rows(old[name], new[name], KEYS[name]) if name in KEYS else None
            if change is None:
                whole[name] = new[name]
            else:
                rows[name] = change
    return {k: v for k, v in (("set", whole), ("rows", rows)) if v}


def _rows(old: list[Row] | None, new: list[Row] | None, key: str) -> Row | None:
    """The change of a list whose rows are known by key; None where rows that stay have changed their order."""
    if not old or not new:
        return None
    before = {r[key]: r for r in old}
    stay = {r[key] for r in new if before.get(r[key]) == r}
    if [r[key] for r in old if r[key] in stay] != [r[key] for r in new if r[key] in stay]:
        return None
    gone = [i for i, r in enumerate(old) if r[key] not in stay]
    return {"gone": gone, "put": [[i, r] for i, r in enumerate(new) if r[key] not in stay]}


def applied(old: State, frame: Frame) -> State:
    """The state after a frame. Raises: ValueError when the frame does not fit."""
    whole = frame.get("set", {})
    state: State = {**LATER, **old, **whole}
    if frame.get("key") and len(LATER | whole) != len(NAMES):
        raise ValueError("a whole snapshot lacks fields")
    for name, change in frame.get("rows", {}).items():
        gone = set(change["gone"])  # type: ignore[index]
        rest = iter([r for i, r in enumerate(state[name] or ()) if i not in gone])
        rows: list[Row] = []
        for place, row in change["put"]:  # type: ignore[index]
            rows += (r for _, r in zip(range(place - len(rows)), rest, strict=False))
            if len(rows) != place:
                raise ValueError(f"{name}: a row has no such place")
            rows.append(row)
        state[name] = [*rows, *rest]
    return state


@dataclass(frozen=True)
class Block:
    """offset: in the file. first: number of its first frame."""

    offset: int
    first: int


class Recording:
    """A file of snapshots, checked as a whole when it is opened. times: of each snapshot, in seconds since the first.

    Raises: RecordingError.
    """

    def __init__(self, file: Path) -> None:
        self.path = file
        self.times = array("d")
        self.blocks: list[Block] = []
        self._shown: tuple[int, list[Snapshot]] = (-1, [])
        try:
            self._file = file.open("rb")
            self.header, offset = self._read_header()
            total = 0
            while offset is not None:
                first = len(self.times)
                frames, size, after = self._read(offset)
                for frame, _ in frames:
                    if self.times and frame["t"] < self.times[-1]:
                        raise self._wrong("its times go backwards")
                    self.times.append(frame["t"])
                total += size
                if total > TOTAL or len(self.times) > FRAMES:
                    raise self._wrong("it is too large")
                if len(self.times) > first:
                    self.blocks.append(Block(offset, first))
                offset = after
        except OSError as error:
            raise RecordingError(f"{file}: {error.strerror}") from error
        if not self.times:
            raise RecordingError(f"{file}: holds no snapshot; the recording was ended before the first")

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, number: int) -> Snapshot:
        """A snapshot by its number. Raises: RecordingError when the file has changed since."""
        at = bisect_right(self.blocks, number, key=lambda b: b.first) - 1
        if self._shown[0] != at:
            frames, _, _ = self._read(self.blocks[at].offset)
            self._shown = (at, [self._snapshot(state) for _, state in frames])
        block = self._shown[1]
        if number - self.blocks[at].first >= len(block):
            raise self._wrong("it has changed")
        return block[number - self.blocks[at].first]

    def when(self, number: int) -> datetime:
        """When a snapshot was taken."""
        return datetime.fromtimestamp(self._made + self.times[number], UTC)

    def _snapshot(self, state: State) -> Snapshot:
        given: State = {k: tuple(v) if k in TUPLES and v is not None else v for k, v in state.items()}
        given["results"] = {**dict.fromkeys(Results.__annotations__), **state["results"]}
        return Snapshot(self.path, **given)

    def _read_header(self) -> tuple[Header, int | None]:
        raw, after = self._member(0, "it is no recording of djsb")
        line, found, rest = raw.partition(b"\n")
        try:
            given = json.loads(line) if found else {}
        except (ValueError, RecursionError):
            given = {}
        if not isinstance(given, dict) or given.get("djsb") != "recording" or rest:
            raise self._wrong("it is no recording of djsb")
        if given.get("version") != VERSION:
            known = f"this djsb reads version {VERSION}"
            raise RecordingError(f"{self.path}: a recording of version {str(given.get('version'))[:20]}; {known}")
        try:
            header = HEADER.validate_json(line)
            self._made = datetime.fromisoformat(header["made"]).timestamp()
            datetime.fromtimestamp(self._made + 1e9, UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise self._wrong("its header is damaged") from error
        return header, after

    def _read(self, offset: int) -> tuple[list[tuple[Frame, State]], int, int | None]:
        """A block's frames with the state after each, its size unpacked, and where the next one begins."""
        raw, after = self._member(offset, "it is damaged")
        lines = raw.split(b"\n")[:-1]  # after the last line break: nothing, or what a killed recorder left
        try:
            return list(_frames(lines)), len(raw), after
        except ValidationError as error:
            raise self._wrong(f"it is damaged: {_first(error)}") from error
        except ValueError as error:
            raise self._wrong(f"it is damaged: {error}") from error

    def _member(self, offset: int, wrong: str) -> tuple[bytes, int | None]:
        """One gzip member, unpacked, and where the next begins, or None."""
        self._file.seek(offset)
        unpacker, raw = zlib.decompressobj(31), bytearray()
        try:
            while not unpacker.eof:
                data = unpacker.unconsumed_tail or self._file.read(2**16)
                if not data:
                    return bytes(raw), None
                raw += unpacker.decompress(data, 2**20)
                if len(raw) > BLOCK:
                    raise self._wrong("it is too large")
        except zlib.error as error:
            raise self._wrong(wrong) from error
        after = self._file.tell() - len(unpacker.unused_data)
        return bytes(raw), after if unpacker.unused_data or self._file.peek(1) else None

    def _wrong(self, what: str) -> RecordingError:
        return RecordingError(f"{self.path}: cannot be played: {what}")


def _frames(lines: list[bytes]) -> Iterator[tuple[Frame, State]]:
    """Frames with the state after each; the first of a block is whole."""
    state: State = {}
    for line in lines:
        frame = FRAME.validate_json(line)
        if not state and not frame.get("key"):
            raise ValueError("a block does not begin with a whole snapshot")
        state = applied(state, frame)
        yield frame, state


def _first(error: ValidationError) -> str:
    """The first complaint, in a few words."""
    one = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, one['loc']))[:80]}: {one['msg'][:120]}"
