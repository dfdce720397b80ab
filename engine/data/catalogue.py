"""The catalogue: which filters and mappers a study or a recipe may name, and with which parameters.

The filters themselves stand in `ops/table.py`, what they need in `ops/needs.py`.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
import string
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.base import plugins
from engine.base.errors import OpError
from engine.base.ids import json_text
from engine.data.ops import hub
from engine.data.ops.contract import Bounds, Kind, Op
from engine.data.ops.table import OPS

LONGEST = 20_000  # characters of a parameter
PLUGIN = "plugin"  # parameter that says whose plug-in an OP is, so that its version is part of a pool's id
_CONDITION = (
    ast.BoolOp, ast.And, ast.Or, ast.Compare, ast.cmpop, ast.UnaryOp, ast.USub, ast.UAdd, ast.Not, ast.Name, ast.Load,
    ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Expression,
)  # fmt: skip


def get_op(name: str) -> Op:
    """The OP of that name, Data-Juicer's or a plug-in's.

    Raises: OpError that names the nearest known one, PluginError.
    """
    if found := find_op(name):
        return found
    near = difflib.get_close_matches(name, OPS, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; docs/guides/ops.md lists the known ones"
    raise OpError(f"unknown OP {name!r}{hint}, or pip install the package whose plug-in it is")


def find_op(name: str) -> Op | None:
    """The OP of that name, or None where there is none that gives a statistic. Raises: PluginError."""
    if name in OPS:
        return OPS[name]
    given = plugins.plugin(plugins.OPS, name)
    if given is None:
        return None
    op: Op = plugins.loaded(given, lambda found: op_fault(name, found))
    return replace(op, fixed={**op.fixed, PLUGIN: f"{given.package} {op.version}"})


def op_fault(name: str, given: Any) -> str | None:
    """Why what a plug-in gives is no OP, or None."""
    if not isinstance(given, Op) or given.name != name or not name.endswith("_filter"):
        return f"is no Op of the name {name}, which ends with _filter"
    if not given.by or not given.statistics:
        return "names no filter (by), or no statistic"
    return None


def ops_for(modalities: frozenset[str]) -> list[Op]:
    """The OPs whose fields are all there, cheapest first; not those that only a person can want."""
    fitting = (op for op in OPS.values() if op.modalities and op.modalities <= modalities)
    return sorted((op for op in fitting if not (op.rare or op.asks or op.barred)), key=lambda op: -(op.rate or 0))


def statistics_of(name: str, params: Mapping[str, Any]) -> Mapping[str, Bounds]:
    """Stats key → its bounds, of an OP with these parameters."""
    op = get_op(name)
    if op.named_by is None:
        return op.statistics
    (bounds,) = op.statistics.values()
    return {str(params[op.named_by]): bounds} if op.named_by in params else {}


def check_params(name: str, params: Mapping[str, Any], root: Path | None = None) -> dict[str, Any]:
    """Parameters as a study keeps them: known names, right types, model folders as absolute paths, lists as JSON.

    A model that the hub's local cache may hold keeps its name. root: folder that relative model paths start from.
    Raises: OpError that names the OP, the parameter and what it takes.
    """
    op = get_op(name)
    checked: dict[str, Any] = dict(op.fixed)
    if op.model and op.hub:
        checked[op.model] = op.hub
    for key, value in params.items():
        if key in op.fixed and value == op.fixed[key]:
            continue  # a statistic's own parameters come back with it
        if key == PLUGIN and key in op.fixed:
            raise OpError(f"{name}: its values are of {value}, and {op.fixed[key]} is installed; compute them anew")
        if key == op.model:
            checked[key] = _model(name, key, value, root or Path())
            continue
        kind = op.params.get(key)
        if kind is None:
            allowed = [*op.params, *([op.model] if op.model else [])]
            raise OpError(f"{name}: unknown parameter {key!r}; it takes {', '.join(allowed) or 'none'}")
        checked[key] = _plain(name, key, value, kind) if isinstance(kind, type) else _shaped(name, key, value, kind)
    return checked


def _model(name: str, key: str, value: Any, root: Path) -> str:
    """The folder of a model, or its name on the hub where no folder of the study can be meant."""
    if not isinstance(value, str):
        raise OpError(f"{name}: {key} takes the path of a local folder, or a model's name on the hub, not {value!r}")
    folder = root / Path(value).expanduser()
    if hub.NAME.fullmatch(value) and not folder.is_dir() and (hub.snapshot(value) or not folder.parent.is_dir()):
        return value
    return str(folder.resolve())


def _plain(name: str, key: str, value: Any, kind: type) -> Any:
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, int if kind is float else kind) | (
        kind is float and isinstance(value, float)
    ):
        raise OpError(f"{name}: {key} takes {kind.__name__}, not {value!r}")
    if kind is not bool and kind is not str and value <= 0:
        raise OpError(f"{name}: {key} must be above 0, not {value!r}")
    return value


_FORMS: dict[Kind, str] = {
    "field": "the name of a field", "fields": "a list of names of fields", "words": "a list of texts",
    "template": "a text with {field} in it", "rows": "a list of rows, each a mapping of texts",
    "condition": "comparisons of fields with values, joined by and, or, not",
}  # fmt: skip


def _shaped(name: str, key: str, value: Any, kind: Kind) -> str:
    """A parameter that says more than one word, as text: lists as JSON."""
    if kind in ("fields", "words", "rows") and isinstance(value, str):
        try:
            listed = json.loads(value)
        except ValueError:
            listed = None
        value = listed if isinstance(listed, list) or kind == "rows" else [value]
    if not _fits(value, kind):
        raise OpError(f"{name}: {key} takes {_FORMS[kind]}, not {str(value)[:60]!r}")
    plain = value if isinstance(value, str) else json_text(value, ensure_ascii=False)
    if len(plain) > LONGEST:
        raise OpError(f"{name}: {key} is {len(plain)} characters long, and may be {LONGEST}")
    return plain


def _fits(value: Any, kind: Kind) -> bool:
    if kind in ("fields", "words"):
        return isinstance(value, list) and bool(value) and all(isinstance(x, str | int | float | None) for x in value)
    if kind == "rows":
        return isinstance(value, list) and bool(value) and all(_is_row(row) for row in value)
    if not isinstance(value, str) or not value:
        return False
    return {"template": _places, "condition": _names}.get(str(kind), str)(value) is not None


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(isinstance(x, str) for pair in row.items() for x in pair)


def _places(template: str) -> list[str] | None:
    """The fields that a template names; None where it asks for more than fields."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        return None
    names = [name for _, name, _, _ in parts if name is not None]
    plain = all(name.isidentifier() and not form and not turn for _, name, form, turn in parts if name is not None)
    return names if plain else None


def _names(condition: str) -> list[str] | None:
    """The fields that a condition names; None where it is more than Data-Juicer reads, or none at all."""
    try:
        tree = ast.parse(condition, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    nodes = list(ast.walk(tree))
    if not all(isinstance(node, _CONDITION) for node in nodes) or not isinstance(
        tree.body, ast.Compare | ast.BoolOp | ast.UnaryOp
    ):
        return None
    return [node.id for node in nodes if isinstance(node, ast.Name)]


def fields_read(name: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a row that an OP's parameters name, beside its text, images and videos."""
    op = get_op(name)
    found: list[str] = []
    for key, kind in op.params.items():
        value = params.get(key)
        if value is None:
            continue
        if kind == "field":
            found.append(value.partition(".")[0] if op.modality == "row" else value)
        elif kind == "fields":
            found += json.loads(value) if isinstance(value, str) else value
        elif kind == "template":
            found += _places(value) or ()
        elif kind == "condition":
            found += _names(value) or ()
    own = {"text"} & op.modalities  # as Data-Juicer calls the text field, whatever its name is
    return tuple(name for name in dict.fromkeys(found) if name not in own)


def as_built(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as Data-Juicer gets them: lists as lists, models of the hub by their folders in the local cache."""
    op = get_op(name)
    built = as_written(name, params)
    if op.model in built and (folder := hub.snapshot(str(built[op.model]))):
        built[op.model] = str(folder)
    return built


def as_written(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a recipe holds them: lists as lists, models of the hub by their names."""
    kinds = get_op(name).params
    return {
        key: json.loads(value) if kinds.get(key) in ("fields", "words", "rows") and isinstance(value, str) else value
        for key, value in params.items()
        if key != PLUGIN
    }


# mappers that a proposal may name, with the parameters that it may set; what a type cannot say stays out
MAPPERS: dict[str, Mapping[str, type]] = {
    "clean_copyright_mapper": {},
    "clean_email_mapper": {},
    "clean_html_mapper": {},
    "clean_ip_mapper": {},
    "clean_links_mapper": {},
    "fix_unicode_mapper": {},
    "image_captioning_mapper": {"hf_img2seq": Path, "caption_num": int, "prompt": str},
    "image_diffusion_mapper": {"hf_diffusion": Path, "strength": float, "guidance_scale": float},
    "punctuation_normalization_mapper": {},
    "remove_long_words_mapper": {"min_len": int, "max_len": int},
    "remove_specific_chars_mapper": {"chars_to_remove": str},
    "whitespace_normalization_mapper": {},
}

# fixed parameters: one output row for each input row, and no second model
MAPPERS_FIXED: dict[str, Mapping[str, Any]] = {
    "image_captioning_mapper": {"keep_original_sample": False},
    "image_diffusion_mapper": {"keep_original_sample": False, "aug_num": 1},
}
MAPPERS_PACKAGES = {
    "clean_html_mapper": "selectolax", "fix_unicode_mapper": "ftfy", "image_diffusion_mapper": "diffusers",
}  # fmt: skip


def mapper_fields(name: str) -> tuple[frozenset[str], str]:
    """(modalities that a mapper reads, the one that it changes)."""
    if name == "image_diffusion_mapper":
        return frozenset({"text", "image"}), "image"
    return frozenset({"image", "text"} if name == "image_captioning_mapper" else {"text"}), "text"


def mapper_model(name: str) -> str | None:
    """The parameter of a mapper that takes a model's folder, or None."""
    return next((key for key, kind in MAPPERS[name].items() if kind is Path), None)


def mapper_needs(name: str, params: Mapping[str, Any]) -> str | None:
    """Why a mapper cannot run here, with the remedy; None when it can. `params` as from `check_mapper`."""
    package = MAPPERS_PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        return f"needs {package}; pip install {package}"
    model = mapper_model(name)
    if model is None:
        return None
    folder = params.get(model)
    if folder is None:
        return f"needs local weights; set {model} to their folder"
    wanted = "model_index.json" if name == "image_diffusion_mapper" else "config.json"
    if not (Path(folder) / wanted).is_file():
        return f"{model}: {folder} holds no {wanted}; put the weights there"
    return None


def check_mapper(name: str, params: Mapping[str, Any], root: Path, anywhere: bool = False) -> dict[str, Any]:
    """Parameters of a mapper on the allowlist; model folders as absolute paths inside the study's folder `root`.

    anywhere: they may lie elsewhere on this machine, as in a recipe that a person applies.
    Raises: OpError for any other OP or parameter, a value of another type, and a path that leads out of the study.
    """
    if name not in MAPPERS:
        raise OpError(f"OP {name!r} is not on the list of mappers; it has {', '.join(MAPPERS)}")
    checked: dict[str, Any] = {}
    for key, value in params.items():
        kind = MAPPERS[name].get(key)
        if kind is None:
            raise OpError(f"{name}: parameter {key!r} may not be set; it takes {', '.join(MAPPERS[name]) or 'none'}")
        accepted: Any = {Path: str, float: (int, float)}.get(kind, kind)
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise OpError(f"{name}: {key} takes {'a local path' if kind is Path else kind.__name__}, not {value!r:.80}")
        if isinstance(value, str) and len(value) > 500:
            raise OpError(f"{name}: {key} is {len(value)} characters long, and may be 500")
        if kind in (int, float) and not 0 < value < 1e6:
            raise OpError(f"{name}: {key} must be above 0 and below a million, not {value}")
        if key == "strength" and value > 1:
            raise OpError(f"{name}: strength must be at most 1, not {value}")
        if kind is Path:
            checked[key] = str((root / Path(value).expanduser()).resolve() if anywhere else inside(root, value))
        else:
            checked[key] = value
    return checked


def inside(root: Path, path: str) -> Path:
    """A path that someone else wrote, which must stay in the study's folder `root`.

    Raises: OpError for an absolute path, a URL, and one that leads out of it, also by a link.
    """
    plain = "://" not in path and "\0" not in path and not Path(path).is_absolute() and not path.startswith("~")
    if plain and (found := (root / path).resolve()).is_relative_to(root.resolve()):
        return found
    raise OpError(f"path {path!r:.80} leads out of the study; give one inside its folder")
