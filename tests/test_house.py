"""The house: imports flow one way, SQL stands in the journal, and no `__init__.py` does anything."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SQL = re.compile(r"\bSELECT\b|sqlite3|sqlite_utils|\.execute\(|\bstore\.(query|one|put)\(")
MAY_HOLD_SQL = ("engine/journal/", "agent/literature.py")
ROWS = re.compile(r"\b(Row|dict\[str, Any\]|sqlite3\.\w+|Database)\b")


@cache
def modules() -> dict[str, Path]:
    """Every module of the three packages, by its dotted name."""
    files = sorted(f for top in ("app", "agent", "engine") for f in (ROOT / top).rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


@cache
def tree(module: str) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def imports(module: str, node: ast.AST | None = None) -> Iterator[str]:
    """The modules of ours that a module imports anywhere: in functions and under TYPE_CHECKING too."""
    for part in ast.walk(node or tree(module)):
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names if alias.name in modules())
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, f"{module}: a relative import"
            for alias in part.names:
                name = f"{part.module}.{alias.name}"
                yield from (found for found in [name if name in modules() else str(part.module)] if found in modules())


def circles() -> list[set[str]]:
    """Sets of modules that reach each other (Tarjan's strongly connected components of more than one)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    parts: list[set[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in imports(module):
            if other not in number:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == number[module]:
            at = stack.index(module)
            parts.append(set(stack[at:]))
            del stack[at:]

    for module in modules():
        if module not in number:
            visit(module)
    return [part for part in parts if len(part) > 1]


def test_no_module_imports_itself_by_any_way() -> None:
    found = [sorted(part) for part in circles()]
    assert not found, f"circles of imports: {found}"


def floors() -> Iterator[tuple[str, list[set[str]]]]:
    """Each layers contract of pyproject.toml: its container and its floors from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in settings["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            layers = [{name.strip() for name in layer.split("|")} for layer in contract["layers"]]
            for container in contract.get("containers", [""]):
                yield container, layers


@pytest.mark.parametrize("container, layers", floors(), ids=lambda value: value if isinstance(value, str) else "")
def test_nothing_imports_upwards_inside_a_function(container: str, layers: list[set[str]]) -> None:
    def floor(module: str) -> int | None:
        inner = module.removeprefix(f"{container}.") if container else module
        at = [i for i, names in enumerate(layers) if inner.split(".")[0] in names]
        return at[0] if at and (not container or module.startswith(f"{container}.")) else None

    upwards = set()
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for other in imports(module, node):
                    own, theirs = floor(module), floor(other)
                    if own is not None and theirs is not None and theirs < own:
                        upwards.add(f"{module}.{node.name} imports {other}")
    assert not upwards, "\n".join(sorted(upwards))


def test_a_task_knows_no_other() -> None:
    """But caption, which is vlm asked for captions. A new task's folder is in no contract of pyproject.toml."""
    tasks = {module.split(".")[2] for module in modules() if re.fullmatch(r"engine\.tasks\.\w+\.task", module)}
    assert {"clip", "lm", "vlm"} <= tasks
    for module in modules():
        own = module.split(".")[2] if module.startswith("engine.tasks.") else ""
        if own in tasks:
            others = {name.split(".")[2] for name in imports(module) if name.startswith("engine.tasks.")} & tasks
            assert others <= {own, *(["vlm"] if own == "caption" else [])}, module


def test_sql_stands_in_the_journal_only() -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, file in ((str(f.relative_to(ROOT)), f) for f in modules().values())
        if not name.startswith(MAY_HOLD_SQL)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if SQL.search(line)
    ]
    assert not found, f"{len(found)} lines:\n" + "\n".join(found)


def test_no_row_of_the_database_leaves_the_journal() -> None:
    found = []
    for module in modules():
        if module.startswith("engine.journal.") and module.split(".")[-1] not in ("store", "schema", "connect"):
            for node in tree(module).body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    kinds = [a.annotation for a in (*node.args.args, *node.args.kwonlyargs)] + [node.returns]
                    if ROWS.search(" ".join(ast.unparse(kind) for kind in kinds if kind)):
                        found.append(f"{module}.{node.name}")
    assert not found, f"public functions with rows in their signature: {found}"


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    """What a module calls, by its last name."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


def test_text_files_are_in_utf8_whatever_the_locale() -> None:
    found = []
    for module in modules():
        for name, call in calls(module):
            mode = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
            as_text = not call.args or (isinstance(mode, str) and re.fullmatch("[rwax+]+", mode))
            opens = name in ("open", "NamedTemporaryFile") and as_text and "tarfile" not in ast.unparse(call)
            if (opens or name in ("read_text", "write_text")) and "encoding" not in [k.arg for k in call.keywords]:
                found.append(f"{module}:{call.lineno} {ast.unparse(call)}")
    assert not found, f"text files without encoding: {found}"


def test_json_holds_no_nan() -> None:
    """What may hold one goes through `json_text`; elsewhere it is an error. A few keep it among themselves."""
    inner = {f"engine.{m}" for m in ("base.ids", "base.lines", "data.scan", "runner.worker", "tasks.command.numbers")}
    found = [
        f"{module}:{call.lineno}"
        for module in set(modules()) - inner
        for name, call in calls(module)
        if name in ("dumps", "dump") and ast.unparse(call.func).startswith("json.")
        if "allow_nan" not in [k.arg for k in call.keywords]
    ]
    assert not found, f"JSON that may hold NaN: {found}"


def test_yaml_is_read_in_one_place() -> None:
    found = [m for m in modules() if "yaml.safe_load" in ast.unparse(tree(m)) or "yaml.load" in ast.unparse(tree(m))]
    assert not found, f"YAML is read by engine.base.yaml_text, not in {found}"


def test_a_folder_says_what_it_is_for_and_does_nothing() -> None:
    wrong = []
    for file in (f for f in modules().values() if f.name == "__init__.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if len(tree.body) != 1 or not ast.get_docstring(tree):
            wrong.append(str(file.relative_to(ROOT)))
    assert not wrong, f"not a docstring alone: {wrong}"
