"""Defaults of Data-Juicer's filters, read of its source: importing it takes seconds."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

NAMED = {"sys.maxsize": sys.maxsize, "sys.float_info.max": sys.float_info.max, "-sys.maxsize": -sys.maxsize}


@cache
def defaults(op: str) -> Mapping[str, Any]:
    """Parameter → its default; those that are no plain value are left out."""
    spec = importlib.util.find_spec("data_juicer")
    assert spec is not None and spec.origin is not None  # it is a dependency
    file = Path(spec.origin).parent / "ops" / "filter" / f"{op}.py"
    if not file.is_file():
        return {}
    found: dict[str, Any] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and "register_module" in "".join(map(ast.unparse, node.decorator_list)):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    found |= _of(method.args)
    return found


def _of(args: ast.arguments) -> dict[str, Any]:
    names = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    pairs = list(zip(reversed(names), reversed(args.defaults), strict=False))
    pairs += [(arg.arg, value) for arg, value in zip(args.kwonlyargs, args.kw_defaults, strict=True) if value]
    found = {}
    for name, value in pairs:
        text = ast.unparse(value)
        try:
            found[name] = NAMED[text] if text in NAMED else ast.literal_eval(value)
        except ValueError:
            continue
    return found
