"""Recordings: a round trip through a real feed, hostile and cut-off files, and playing one back in the UI."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import signal
import sqlite3
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input, Static

from app.tui.feed import Feed
from app.tui.reading.snapshot import Snapshot
from app.tui.recording import file as recording_module
from app.tui.recording.file import NAMES, Recorder, Recording, RecordingError, _rows, applied, difference
from app.tui.replay import NOT_RECORDED, ReplayApp
from app.tui.screens.base import Head
from app.tui.widgets.table import KeyedTable
from engine.journal.store import Store
from tests.app.tui.driving import wait
from tests.app.tui.sample import PIPELINES
from tests.conftest import DJSB, Tiny, fuzz, run_djsb, the_error

KEY = "sk-not-for-anyone-else-0123456789"
OUR_OWN = {"folder", "replay", "studies"}
IDS = {"id", "pool", "proposal"}  # columns that are refused where they hold anything else


@contextmanager
def feeding(study: Path, file: Path | None) -> Iterator[tuple[Feed, list[Snapshot], list[tuple[int, Any]]]]:
    shown: list[Snapshot] = []
    answers: list[tuple[int, Any]] = []
    feed = Feed(study, shown.append, lambda n, content: answers.append((n, content)), record=file)
    try:
        yield feed, shown, answers
    finally:
        feed.close()


def run_trial(tiny: Tiny) -> None:
    """Make it look as if a trial ran, with two points of its loss."""
    with closing(sqlite3.connect(tiny.database)) as db, db:
        (trial,) = db.execute("SELECT id FROM trials WHERE state = 'WAITING' LIMIT 1").fetchone()
        db.execute(
            "UPDATE trials SET state = 'RUNNING', device = 'cpu0', started = '2026-01-01T00:00:00' WHERE id = ?",
            (trial,),
        )
        db.executemany("INSERT INTO curve_points VALUES (?, 'loss', ?, ?)", [(trial, 1, 2.5), (trial, 2, 2.25)])


def values(snapshot: Snapshot) -> dict[str, Any]:
    return {name: getattr(snapshot, name) for name in NAMES}


@pytest.fixture(scope="module")
def made(stopped_template: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of a study at rest, with its leaderboard."""
    file = tmp_path_factory.mktemp("made") / "made.djsbrec"
    with feeding(stopped_template.study, file) as (_, shown, _):
        wait(lambda: shown and shown[-1].board is not None)
    return file


def line_of(recording: Path, number: int = 1) -> dict[str, Any]:
    """A line of a recording; 0 is the header, 1 the first whole snapshot."""
    found: dict[str, Any] = json.loads(gzip.decompress(recording.read_bytes()).splitlines()[number])
    return found


def test_what_a_feed_sends_comes_back_and_holds_no_key(
    stopped: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    file = tmp_path / "a.djsbrec"
    with feeding(stopped.study, file) as (feed, shown, answers):
        wait(lambda: shown and shown[-1].board is not None)
        run_trial(stopped)
        wait(lambda: shown[-1].running)
        with Store(stopped.database) as store:
            store.event("note", "something happened")
        with closing(sqlite3.connect(stopped.database)) as db, db:  # past the store's own care
            db.execute("INSERT INTO events(level, kind, text, at) VALUES ('info', 'leak', ?, '2026')", (f"x {KEY} y",))
        wait(lambda: shown[-1].events[0]["kind"] == "leak" and shown[-1].running and file.stat().st_size)
        time.sleep(1.2)  # more than a second, so that at least two snapshots are written
    assert feed._process.returncode == 0
    assert not answers
    assert KEY in str(shown[-1].events[0]), "the feed itself shows it"
    played = Recording(file)
    assert len(played) >= 2
    assert list(played.times) == sorted(played.times) and played.times[0] == 0
    last = values(played[len(played) - 1])
    assert last["events"][0]["text"] == "x [SOME_API_KEY] y"
    expected = values(shown[-1])
    last["events"], expected["events"] = last["events"][1:], expected["events"][1:]
    assert last == expected
    assert KEY.encode() not in gzip.decompress(file.read_bytes())
    assert values(played[0])["setup"] == expected["setup"], "going back works, too"
    assert played.header["study"] == "tiny"


def test_everything_a_snapshot_has_is_recorded() -> None:
    assert set(NAMES) == {f.name for f in fields(Snapshot)} - OUR_OWN, "add new fields to recording_shape.Whole"


def test_a_problem_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "a.djsbrec"
    recorder = Recorder(file, {})
    recorder.take(Snapshot(tmp_path, problem="no study here"))
    recorder.close()
    assert Recording(file)[0].problem == "no study here"


def test_pipelines_are_recorded_and_a_recording_without_them_still_opens(tmp_path: Path) -> None:
    file = tmp_path / "a.djsbrec"
    recorder = Recorder(file, {})
    recorder.take(Snapshot(tmp_path, pipelines=PIPELINES))
    recorder.close()
    assert Recording(file)[0].pipelines == PIPELINES
    whole = line_of(file)
    del whole["set"]["pipelines"]
    file.write_bytes(packed([line_of(file, 0)], [whole, {"t": 9, "set": {"spent": 2.0}}]))
    assert [Recording(file)[i].pipelines for i in (0, 1)] == [(), ()]


ROW = st.fixed_dictionaries({"id": st.integers(0, 6), "v": st.integers(0, 2)})
ROWS = st.lists(ROW, max_size=6, unique_by=lambda r: r["id"])


@given(ROWS, ROWS)
def test_a_change_of_rows_makes_the_new_from_the_old(old: list[Any], new: list[Any]) -> None:
    if (change := _rows(old, new, "id")) is not None:
        assert applied({"trials": old}, {"t": 0.0, "rows": {"trials": change}})["trials"] == new  # type: ignore[typeddict-item]


def test_one_changed_row_of_many_is_a_small_change() -> None:
    old = {**dict.fromkeys(NAMES), "trials": [{"id": str(i), "state": "WAITING"} for i in range(1000)]}
    new = {**old, "trials": [*old["trials"][1:500], {"id": "0", "state": "RUNNING"}, *old["trials"][500:]]}
    assert difference(old, new) == {"rows": {"trials": {"gone": [0], "put": [[499, {"id": "0", "state": "RUNNING"}]]}}}


def test_long_recordings_are_cut_into_blocks(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "BLOCK_FRAMES", 4)
    first = Recording(made)[0]
    recorder = Recorder(tmp_path / "b.djsbrec", {})
    for i in range(11):
        recorder.take(replace(first, spent=float(i)))
        recorder.tick(force=True)
    recorder.close()
    played = Recording(tmp_path / "b.djsbrec")
    assert len(played.blocks) == 3
    assert [played[i].spent for i in (10, 0, 7, 3, 4)] == [10, 0, 7, 3, 4]


def recorded(file: Path) -> bool:
    """Whether the file holds a snapshot."""
    try:
        return len(Recording(file)) > 0
    except RecordingError:
        return False


def test_a_killed_recorder_leaves_a_readable_file(stopped: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "a.djsbrec"
    with feeding(stopped.study, file) as (feed, shown, answers):
        wait(lambda: recorded(file))  # its head alone is no recording
        feed._process.send_signal(signal.SIGKILL)
        wait(lambda: answers and len(shown) > 2)  # the feed goes on without
        assert answers[0][0] == 0 and "the recording ends here" in str(answers[0][1])
    assert values(Recording(file)[0])["trials"] == shown[0].trials


def test_a_file_cut_anywhere_is_read_or_refused(tmp_path: Path, made: Path) -> None:
    whole, file, counts = made.read_bytes(), tmp_path / "cut.djsbrec", []
    for size in [*range(0, 300, 7), *range(300, len(whole), 101)]:
        file.write_bytes(whole[:size])
        try:
            counts.append(len(Recording(file)))
        except RecordingError as error:
            assert str(error).startswith(str(file)) and "\n" not in str(error)
            counts.append(0)
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] >= 1


def test_a_file_with_flipped_bits_is_read_or_refused(tmp_path: Path, made: Path) -> None:
    whole, file, rng, refused = made.read_bytes(), tmp_path / "flipped.djsbrec", random.Random(0), 0
    for _ in range(60):
        raw = bytearray(whole)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        file.write_bytes(raw)
        try:
            Recording(file)
        except RecordingError:
            refused += 1
    assert refused > 30


def packed(*blocks: list[Any]) -> bytes:
    """A file of these blocks; a value that is bytes is a line as it stands."""
    lines = [[v if isinstance(v, bytes) else json.dumps(v).encode() for v in block] for block in blocks]
    return b"".join(gzip.compress(b"".join(line + b"\n" for line in block)) for block in lines)


def change(whole: dict[str, Any], **put: Any) -> dict[str, Any]:
    return {**whole, "set": {**whole["set"], **put}}


HOSTILE: dict[str, Callable[[dict[str, Any], dict[str, Any]], bytes]] = {
    "empty": lambda h, w: b"",
    "a text": lambda h, w: b"hello\n",
    "a pickle": lambda h, w: pickle.dumps({"djsb": "recording"}),
    "a pickle in gzip": lambda h, w: gzip.compress(pickle.dumps({"djsb": "recording"})),
    "another's gzip": lambda h, w: packed([{"something": "else"}]),
    "newer": lambda h, w: packed([{**h, "version": 2}], [w]),
    "no snapshot": lambda h, w: packed([h]),
    "a header that lacks fields": lambda h, w: packed([{"djsb": "recording", "version": 1}], [w]),
    "a time that is none": lambda h, w: packed([{**h, "made": "yesterday"}], [w]),
    "a bomb": lambda h, w: packed([h]) + gzip.compress(b"\0" * 80 * 2**20),
    "a bomb first": lambda h, w: gzip.compress(b"\0" * 80 * 2**20),
    "nested": lambda h, w: packed([h], [b"[" * 100_000]),
    "a nested header": lambda h, w: packed([b"[" * 100_000]),
    "no JSON": lambda h, w: packed([h], [b"\xff\xfe"]),
    "a change first": lambda h, w: packed([h], [{"t": 0, "set": {"spent": 1.0}}]),
    "a field too few": lambda h, w: packed([h], [{**w, "set": {k: v for k, v in w["set"].items() if k != "name"}}]),
    "back in time": lambda h, w: packed([h], [{**w, "t": 5}, {"t": 4}]),
    "NaN": lambda h, w: packed([h], [change(w, spent=float("nan"))]),
    "infinite": lambda h, w: packed([h], [change(w, limit=float("inf"))]),
    "a huge number": lambda h, w: packed([h], [b'{"t": ' + b"9" * 5000 + b"}"]),
    "a number out of bounds": lambda h, w: packed([h], [change(w, waiting=10**16)]),
    "a huge text": lambda h, w: packed([h], [change(w, name="x" * 30_000)]),
    "a text for a number": lambda h, w: packed([h], [change(w, spent="much")]),
    "no samples": lambda h, w: packed([h], [change(w, trials=[{**w["set"]["trials"][0], "horizon": 0}])]),
    "a row without fields": lambda h, w: packed([h], [change(w, events=[{"id": 1}])]),
    "an unknown bucket": lambda h, w: packed([h], [change(w, buckets=["low", "low"])]),
    "a proposal that is none": lambda h, w: packed(
        [h], [change(w, proposals=[{**w["set"]["proposals"][0], "content": {"reason": 3}}])]
    ),
    "a pool that is a path": lambda h, w: packed([h], [change(w, trials=[{**w["set"]["trials"][0], "pool": "../x"}])]),
    "a trial that is a path": lambda h, w: packed([h], [change(w, trials=[{**w["set"]["trials"][0], "id": "/x"}])]),
    "a row nowhere": lambda h, w: packed(
        [h], [w, {"t": 1, "rows": {"events": {"gone": [], "put": [[10**9, w["set"]["events"][0]]]}}}]
    ),
    "rubbish behind": lambda h, w: packed([h], [w]) + b"rubbish",
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_in_one_line(kind: str, tmp_path: Path, made: Path) -> None:
    file = tmp_path / "hostile.djsbrec"
    file.write_bytes(HOSTILE[kind](line_of(made, 0), line_of(made)))
    with pytest.raises(RecordingError) as caught:
        Recording(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600
    if kind == "newer":
        assert "version 2" in str(caught.value)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from nodes(one, (*path, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["/", "../../x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@fuzz
@given(st.data())
def test_any_other_value_anywhere_is_read_or_refused(
    made: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    frame = line_of(made)
    *path, last = data.draw(st.sampled_from(list(nodes(frame))[1:]))
    holder = frame
    for key in path:
        holder = holder[key]
    holder[last] = data.draw(JSON)
    file = tmp_path_factory.getbasetemp() / "fuzzed.djsbrec"
    file.write_bytes(packed([line_of(made, 0)], [frame]))
    try:
        recording = Recording(file)
    except RecordingError as error:
        assert "\n" not in str(error)
    else:
        assert values(recording[0])


def test_the_command_line_says_what_is_wrong(tmp_path: Path, stopped: Tiny) -> None:
    file = tmp_path / "a.djsbrec"
    file.write_text("no recording")
    assert "no recording of djsb" in the_error(run_djsb("tui", "--replay", file))
    assert "No such file" in the_error(run_djsb("tui", "--replay", tmp_path / "none"))
    assert "is there already" in the_error(run_djsb("tui", stopped.study, "--record", file))
    assert run_djsb("tui", "--replay", file, "--record", tmp_path / "b").returncode == 2


def test_without_a_terminal_it_records_until_it_is_interrupted(stopped: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "a.djsbrec"
    process = subprocess.Popen(
        [str(DJSB), "tui", str(stopped.study), "--record", str(file)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait(lambda: file.exists() and file.stat().st_size > 0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and out == "" and "Traceback" not in err
    assert len(Recording(file)) >= 1


def test_a_full_disk_ends_the_recording_not_the_feed(stopped: Tiny) -> None:
    with feeding(stopped.study, Path("/dev/full")) as (_, shown, answers):
        wait(lambda: answers)
        assert answers[0][0] == 0 and "the recording ends here" in str(answers[0][1])
        seen = len(shown)
        run_trial(stopped)
        wait(lambda: len(shown) > seen)


# -- playing it back ----------------------------------------------------------------------------------


@pytest.fixture
def steps(made: Path, tmp_path: Path) -> Path:
    """A recording of five snapshots, ten seconds apart, whose texts would like to be markup and escapes."""
    head, whole = line_of(made, 0), line_of(made)
    nasty = "[/red][bold]\x1b[31m[@click=app.quit]x[/] \u202e"
    whole["set"]["board"] = line_of(made, -1)["set"]["board"]
    whole["set"]["events"] = [{"id": 1, "level": "info", "kind": nasty, "subject": nasty, "text": nasty, "at": nasty}]
    for name in ("trials", "proposals", "decisions"):
        whole["set"][name][0] |= {
            k: nasty for k, v in whole["set"][name][0].items() if isinstance(v, str) and k not in IDS
        }
    whole["set"]["proposals"][0]["content"]["reason"] = nasty
    file = tmp_path / "steps.djsbrec"
    later = [{"t": 10 * i, "set": {"spent": float(i)}} for i in range(1, 5)]
    file.write_bytes(packed([head], [whole, *later]))
    return file


def told(app: ReplayApp) -> str:
    return str(app.screen.query_one(Head).content)


async def test_a_recording_is_played_paused_stepped_and_sped_up(steps: Path) -> None:
    app = ReplayApp(Recording(steps))
    async with app.run_test(size=(160, 48)) as pilot:

        async def says(part: str) -> None:
            for _ in range(200):
                if app.snapshot and part in told(app):
                    return
                await pilot.pause(0.05)
            raise AssertionError(f"{part!r} is not in {told(app)!r}")

        await says("REPLAY")
        await pilot.press("space")
        await says("⏸")
        at = app.player.at if app.player else -1
        await pilot.press("right", "right", "left")
        await says(f"{at + 2}/5 ⏸ ×1")
        assert app.snapshot and app.snapshot.spent == at + 1
        await pilot.press("plus", "plus", "minus", "minus", "minus")
        await says("×1/2")
        await pilot.press(*["plus"] * 11, "space")
        await says("5/5 ⏸ ×1024")
        await pilot.press(*["minus"] * 12, "space")
        await says("▶ ×1/4")


async def test_hostile_texts_are_shown_as_they_are_on_every_screen(steps: Path) -> None:
    app = ReplayApp(Recording(steps))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("space")
        for key in "123456791":
            await pilot.press(key)
            await pilot.pause(0.1)
            assert "REPLAY" in told(app)
        await pilot.press("7")
        table = app.screen.query_one("#events", KeyedTable)
        row = " ".join(str(c) for c in table.get_row(table.keys[0]))
        assert "[/red][bold]" in row and "\\x1b[31m" in row and "\x1b" not in row and "\\u202e" in row


async def test_a_recording_decides_nothing_and_says_what_it_lacks(steps: Path) -> None:
    app = ReplayApp(Recording(steps))
    async with app.run_test(size=(160, 48)) as pilot:
        await pilot.press("space", "s", "p", "x", "b")
        app.decide(["x"], "approve", "why")
        app.suggest("reason: none")
        await pilot.pause()
        assert {n.message for n in app._notifications} == {"this is a recording: nothing can be asked for or decided"}
        assert not app.folder.exists(), "nothing was written"
        await pilot.press("2")
        for _ in range(100):
            if NOT_RECORDED in str(app.screen.query_one("#histogram", Static).content):
                break
            await pilot.pause(0.05)
        else:
            raise AssertionError("the screen does not say that details are missing")


async def test_keys_of_the_player_are_letters_where_a_text_is_typed(steps: Path) -> None:
    app = ReplayApp(Recording(steps))
    async with app.run_test(size=(160, 48)) as pilot:
        for keys, then in (("space", "board"), ("5", "trials"), ("slash", "filter")):
            await pilot.press(keys)
            for _ in range(400):
                if app.focused is not None and app.focused.id == then:
                    break
                await pilot.pause(0.05)
        await pilot.press("a", "space", "minus")
        assert app.screen.query_one("#filter", Input).value == "a -"


def test_a_file_that_changes_while_it_is_played_is_no_crash(steps: Path) -> None:
    played = Recording(steps)
    with steps.open("r+b") as file:
        file.seek(len(zlib.compress(b"")) + 200)
        file.write(b"\0" * 400)
    with pytest.raises(RecordingError):
        played[2]
