"""The fields of a suggestion: which each kind has, what stands in them, and what is wrong with which."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Button, Input, Label, Select, TextArea

from app.text.printable import printable
from app.tui.widgets.marks import percent
from engine.base.yaml_text import NotYaml, parse_yaml

if TYPE_CHECKING:
    from engine.journal.store import Row

OWN = "bounds"

SAID = {
    "missing": "is needed", "string_too_short": "is needed", "float_type": "is not a number",
    "int_type": "is not a whole number", "literal_error": "is needed",
}  # fmt: skip


def empty(form: Row) -> Row:
    """An experiment of a kind with nothing filled in. form: the kind's, as the study's choices have it."""
    return {"kind": form["kind"], **{f["name"]: f["start"] for f in form["fields"] if f["start"] is not None}}


class Field(Vertical):
    """A name, a widget, and below them what is wrong. path: where the value stands in the suggestion."""

    DEFAULT_CSS = """
    Field { height: auto; }
    Field > Horizontal { height: auto; }
    Field .name { width: 11; }
    Field .problem { color: $error; margin-left: 11; display: none; }
    Field .problem.-shown { display: block; }
    Field TextArea { height: 4; border: none; }
    Field Input, Field Select { width: 1fr; }
    SliceField .statistic { width: 2fr; }
    SliceField .bucket { width: 16; }
    SliceField .bound { width: 12; }
    SliceField .remove { width: 5; min-width: 5; }
    """

    def __init__(self, path: str, name: str, widget: Widget, holds: str) -> None:
        super().__init__()
        self.path, self.label, self.widget, self.holds = path, name, widget, holds

    def compose(self) -> ComposeResult:
        """Name and widget, then the problem."""
        with Horizontal():
            yield Label(self.label, classes="name", markup=False)
            yield self.widget
        yield Label("", classes="problem", markup=False)

    def say(self, problem: str) -> None:
        """Show what is wrong, or that nothing is."""
        label = self.query_one(".problem", Label)
        label.update(printable(problem))
        label.set_class(bool(problem), "-shown")

    @property
    def problem(self) -> str:
        """What is said to be wrong."""
        return str(self.query_one(".problem", Label).content)

    @property
    def value(self) -> Any:
        """As it goes into the suggestion; None: nothing."""
        if isinstance(self.widget, Select):
            return self.widget.selection
        text = self.widget.text if isinstance(self.widget, TextArea) else self.widget.value  # type: ignore[attr-defined]
        return _read(text, self.holds)


class SliceField(Field):
    """One interval: a statistic, a bucket of it, or bounds of its own."""

    def __init__(self, path: str, name: str, part: Row, statistics: dict[str, list[Row]], only_bounds: bool) -> None:
        super().__init__(path, name, Label(), "slice")
        self.part, self.statistics, self.only_bounds = part, statistics, only_bounds

    def compose(self) -> ComposeResult:
        """Statistic, bucket, low, high, and a button that takes the slice out."""
        part, chosen = self.part, self.part.get("bucket") or OWN
        with Horizontal():
            yield Label(self.label, classes="name")
            yield _select(list(self.statistics), part.get("statistic"), "statistic", "statistic")
            if not self.only_bounds:
                fresh = not any(k in part for k in ("bucket", "low", "high"))
                yield _select([*self._buckets(), OWN], None if fresh else chosen, "bucket", "bucket")
            for name in ("low", "high"):
                yield Input(_written(part.get(name)), placeholder=name, classes=f"bound {name}", compact=True)
            if not self.only_bounds:
                yield Button("✕", classes="remove", compact=True)
        yield Label("", classes="problem", markup=False)

    def _buckets(self) -> list[str]:
        return list(dict.fromkeys(b["bucket"] for cuts in self.statistics.values() for b in cuts))

    def on_mount(self) -> None:
        """Bounds are written only where the bucket is none of the study's."""
        self.follow()

    def follow(self) -> None:
        """Show a bucket's own bounds, and let them be written only without one."""
        part = self.value
        bucket = part.get("bucket")
        cut = next((b for b in self.statistics.get(part.get("statistic", ""), ()) if b["bucket"] == bucket), None)
        for name in ("low", "high"):
            entry = self.query_one(f".{name}", Input)
            entry.disabled = bucket is not None
            entry.placeholder = name if cut is None else "any" if cut[name] is None else f"{cut[name]:g}"
            if bucket is not None and entry.value:
                entry.value = ""

    @property
    def value(self) -> Row:
        """The interval, without what is not filled in."""
        bucket = None if self.only_bounds else self.query_one(".bucket", Select).selection
        found: Row = {"statistic": self.query_one(".statistic", Select).selection}
        if bucket not in (None, OWN):
            found["bucket"] = bucket
        else:
            found |= {n: _read(self.query_one(f".{n}", Input).value, "number") for n in ("low", "high")}
        return {k: v for k, v in found.items() if v is not None}


def fields(content: Row, choices: Row, changes: dict[str, float | None]) -> Iterator[Widget]:
    """The widgets for a suggestion. changes: pool → its change in percent, for the choice of pools, best first."""
    experiment = content["experiment"]
    for part in choices["forms"][experiment["kind"]]["fields"]:
        name, holds = part["name"], part["holds"]
        path, value = f"experiment.{name}", experiment.get(name)
        if holds == "slices":
            for i, one in enumerate(value or ()):
                yield SliceField(f"{path}.{i}", f"slice {i + 1}", one, _with(choices, one), False)
            yield Button("+ slice (ctrl+n)", id="add", compact=True, disabled=len(value or ()) >= 6)
        elif holds == "slice":
            yield SliceField(path, name, value or {}, _with(choices, value or {}), True)
        else:
            yield Field(path, name, _widget(part, value, choices, changes), holds)
    for name, hint in (("reason", "why it is worth its cost"), ("expected", "change in percent, if you expect any")):
        value = content.get(name)
        entry = Input(_written(value), placeholder=hint, id=name, compact=True)
        yield Field(name, name, entry, "number" if name == "expected" else "text")
    ids = " ".join(map(str, content.get("cites") or ()))
    entry = Input(ids, placeholder="ids of pools, trials or proposals it rests on", id="cites", compact=True)
    yield Field("cites", "cites", entry, "ids")


def _widget(part: Row, value: Any, choices: Row, changes: dict[str, float | None]) -> Widget:
    name, holds = part["name"], part["holds"]
    if holds == "pool":
        known = {p["id"]: p["label"] for p in choices["pools"]}
        order = sorted(known, key=lambda k: list(changes).index(k) if k in changes else len(changes))
        told = [(f"{printable(known[k])}  {percent(changes.get(k))} %", k) for k in order]
        if value and value not in known:
            told.append((f"{value} (no results)", value))
        return Select(told, value=value or Select.NULL, prompt="a pool with results", compact=True, id="pool")
    if holds == "choice":
        return _select(list(part["choices"]), value, name, name)
    if holds == "lines":
        return TextArea("\n".join(map(str, value or ())), id=name)
    text = yaml.safe_dump(value, default_flow_style=True).strip() if holds == "yaml" and value else _written(value)
    return Input(text, placeholder=part["hint"], id=name, compact=True)


def _with(choices: Row, part: Row) -> dict[str, list[Row]]:
    """The study's statistics, and the one that a slice names if it is none of them: the gate will say so."""
    known: dict[str, list[Row]] = choices["statistics"]
    return known if part.get("statistic") in (None, *known) else {**known, str(part["statistic"]): []}


def _select(names: list[str], value: str | None, prompt: str, kind: str) -> Select[str]:
    options = [(n, n) for n in (names if value in (None, *names) else [*names, str(value)])]
    return Select(options, value=value or Select.NULL, prompt=prompt, classes=kind, compact=True)


def _written(value: Any) -> str:
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    return "" if value is None else str(value)


def _read(text: str, holds: str) -> Any:
    """What a text means; what it cannot mean stays a text, and the suggestion's own check says so."""
    text = text.strip()
    if not text:
        return None
    if holds == "number":
        try:
            return float(text) if re.search(r"[.eE]", text) else int(text)
        except ValueError:
            return text
    if holds == "lines":
        return [line for line in text.splitlines() if line.strip()]
    if holds == "ids":
        return re.split(r"[\s,]+", text)
    if holds == "yaml":
        try:
            return parse_yaml(text, "the field")
        except NotYaml:
            return text
    return text


def gathered(parts: list[Field], form: Row, before: Row) -> Row:
    """The suggestion that stands in the fields. form: of its kind.

    before: what it was, for the parts that have no field.
    """
    found: Row = {"experiment": {"kind": form["kind"]}}
    if any(f["holds"] == "slices" for f in form["fields"]):
        found["experiment"]["slices"] = [f.value for f in parts if isinstance(f, SliceField)]
    for field in parts:
        name = field.path.split(".")[-1]
        if field.path.startswith("experiment.slices."):
            continue
        home = found["experiment"] if "." in field.path else found
        if (value := field.value) is not None:
            home[name] = value
    kept = {k: v for k, v in before.items() if k in ("papers", "fallback", "version") and v}
    return {**found, **kept}


def problems(content: Any) -> dict[str, str]:
    """Path of a field → what is wrong with it; nothing for a valid suggestion."""
    from pydantic import ValidationError

    from engine.proposals.kinds.registry import read_suggestion  # NumPy: the UI starts without it

    try:
        read_suggestion(content)
    except ValidationError as error:
        found: dict[str, str] = {}
        for problem in error.errors(include_url=False):
            where = [str(part) for part in problem["loc"]]
            if where[:1] == ["experiment"] and len(where) > 1:
                del where[1]  # the kind, by which pydantic names the variant
            if problem["type"] == "too_short" and any(p.startswith(".".join(where)) for p in found):
                continue  # pydantic counts only what is valid
            said = SAID.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "string_pattern_mismatch":
                said = f"{str(problem['input'])[:40]!r} is no id"
            if len(where) > 1 and where[-1] in ("statistic", "low", "high", "bucket"):
                said = f"{where[-1]} {said}"
            found.setdefault(".".join(where), said)
        return found
    except (TypeError, ValueError) as error:
        return {"": str(error)[:160]}
    return {}
