"""Write what the reference takes from the code into its pages; `make docs` does so first.

Options come from the command line itself, fields from the models that read study.yaml, columns from a new database.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import typer.main
from pydantic import BaseModel

from app.cli.main import app
from engine.journal.store import Store
from engine.settings.study import Study

HERE = Path(__file__).resolve().parent
VALUES: dict[Any, str] = {
    int: "N",
    float: "N",
    Path: "PATH",
    list[Path]: "PATH",
}  # what an option is given, by its type
# where a section is explained
SEE = {
    "target": "statistics.md", "dataset": "data.md", "evaluation": "statistics.md",
    "model": "tasks.md", "lora": "tasks.md", "vlm": "tasks/vlm.md",
    "video": "tasks/t2v.md",
    "distill": "tasks/t2v.md#consistency-distillation-with-rewards",
    "command": "tasks/command.md", "train": "tasks.md#precision-and-memory",
    "scores": "ops.md#scores-by-a-language-model", "search": "search.md", "mixtures": "mixtures.md",
    "scale": "transfer.md", "confirm": "statistics.md", "cycles": "cycles.md", "cache": "media.md#what-is-kept-of-them",
    "executor": "data.md#on-a-ray-cluster", "executor.slurm": "slurm.md", "agent": "agent.md#the-language-model",
    "guard": "agent.md#decisions",
    "notify": "stopping.md#being-told", "track": "trackers.md",
}  # fmt: skip
BEGIN, END = "<!-- made by docs/reference/make.py -->\n", "<!-- its end -->"


def table(head: str, rows: list[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|---" * columns + "|"]
    return "\n".join(lines + ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows])


def prose(text: str) -> str:
    """A help text with its documents as links, and places to fill in as code."""
    text = re.sub(r"docs/guides/([\w/]+\.md)(#[\w-]+)?", r"[\1](../guides/\1\2)", text)
    return re.sub(r"(?<!`)(\[\{.*?\}\]|\{(?:[^{}]|\{[^{}]*\})*\}|\[[^\]]*\](?!\())", r"`\1`", text)


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its name."""
    inner = getattr(command, "commands", {})
    for sub, child in inner.items():
        yield from leaves(child, f"{name} {sub}")
    if not inner and not command.hidden:
        yield name, command


def option(param: Any) -> tuple[str, str]:
    """An option or argument, and what it is for."""
    kind = param.type_descriptor.annotation
    choices = [c for part in (kind, *get_args(kind)) if get_origin(part) is Literal for c in get_args(part)]
    name = param.metavar if param.param_type_name == "argument" else param.opts[0]
    value = (
        ""
        if param.param_type_name == "argument" or param.is_flag
        else f" {param.metavar or VALUES.get(kind, param.name.upper())}"
    )
    text = prose(param.help or "")
    if choices:
        value = ""
        text = "; ".join(filter(None, [text, "one of " + ", ".join(f"`{c}`" for c in choices)]))
    notes = ["required"] if param.required and value else []
    if param.default not in (None, False, (), []) and not isinstance(param.default, Path):
        notes.append(f"by default `{param.default}`")
    if param.multiple:
        notes.append("may be given several times")
    return f"`{name}{value}`", text + (f" ({', '.join(notes)})" if notes else "")


def commands() -> str:
    """A section a command."""
    parts = []
    for name, command in leaves(typer.main.get_command(app), "djsb"):
        rows = [option(p) for p in command.params if "--help" not in p.opts]
        says = prose(inspect.cleandoc(command.help).replace("\n", " "))
        parts.append(f"### {name}\n\n{says}\n\n{table('argument or option | what it is', rows)}")
    return "\n\n".join(parts)


def kind_of(schema: dict[str, Any], parts: dict[str, Any]) -> str:
    """A field's type in words."""
    if "$ref" in schema:
        return kind_of(parts[schema["$ref"].split("/")[-1]], parts)
    if "anyOf" in schema:
        return " or ".join(kind_of(s, parts) for s in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " · ".join(f"`{c}`" for c in schema.get("enum", [schema.get("const")]))
    kind = {"integer": "integer", "number": "number", "boolean": "`true` · `false`", "string": "text",
            "null": "null", "object": "map", "array": "list"}.get(schema.get("type", ""), "any")  # fmt: skip
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join(
        [kind, ", ".join(f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)]
    ).strip()


def default_of(info: Any) -> str:
    """A field's default as it stands in study.yaml."""
    if info.is_required() or info.default == "":
        return "required"
    return f"`{written(info.get_default(call_default_factory=True))}`"


def written(value: Any) -> str:
    """A value as in YAML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(written, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, str) else json.dumps(value)


def section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """The table of a section's own fields, then its sections."""
    schema = model.model_json_schema()
    rows, inner = [], []
    for name, info in model.model_fields.items():
        optional = [a for a in get_args(info.annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        if optional:
            inner += [(a, f"{prefix}{name}") for a in optional]
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            inner.append((info.annotation, f"{prefix}{name}"))
        else:
            kind = kind_of(schema["properties"][name], schema.get("$defs", {}))
            rows.append((f"`{prefix}{name}`", kind, default_of(info), prose(info.description or "")))
    guide = SEE.get(prefix[:-1])
    more = f" ([{guide.partition('#')[0]}](../guides/{guide}))" if guide else ""
    title = f"### {prefix[:-1]}\n\n{prose(inspect.cleandoc(model.__doc__ or ''))}{more}\n\n" if prefix else ""
    yield title + table("field | type | default | meaning", rows)
    for part, name in inner:
        yield from section(part, f"{name}.")


def fields() -> str:
    """A section for each of the study's, the fields of none first."""
    return "\n\n".join(section(Study, ""))


def columns() -> str:
    """The columns of every table, with their types."""
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "s.db") as store:
        tables = sorted(t for t in store.db.table_names() if not t.startswith(("_", "sqlite_")))
        rows = [(f"`{t}`", ", ".join(f"`{c.name}` {c.type.lower()}" for c in store.db[t].columns)) for t in tables]
    return table("table | columns", rows)


PAGES: dict[str, Callable[[], str]] = {"commands.md": commands, "study.md": fields, "store.md": columns}


def with_part(page: str) -> str:
    """A page's text with what the code says now."""
    text = (HERE / page).read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{PAGES[page]()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    for page in PAGES:
        (HERE / page).write_text(with_part(page), encoding="utf-8")
