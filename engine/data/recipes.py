"""Recipes: slices as a Data-Juicer YAML, and the check that a recipe from elsewhere must pass.

`recipe_yaml` writes what makes `dj-process` keep exactly the slices' rows; `read_recipe` reads only
what is harmless.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from engine.base.errors import OpError, StudyError
from engine.base.yaml_text import parse_yaml
from engine.data.catalogue import (
    MAPPERS,
    MAPPERS_FIXED,
    as_written,
    check_mapper,
    check_params,
    get_op,
    mapper_fields,
    mapper_model,
    mapper_needs,
)
from engine.data.dedup_entries import READS as DEDUPLICATORS
from engine.data.dedup_entries import dedup_params
from engine.data.field_entries import merged
from engine.data.ops import hub
from engine.data.ops.contract import IMAGE_TOKEN, VIDEO_TOKEN, Bounds, Number, Op
from engine.data.recipe_entries import FLAGS, Entry, slice_entries, without_endless
from engine.records.pool import MapperStep, Slice
from engine.settings.data import DatasetSection

KEYS = ("process", "text_keys", "image_key", "video_key", "np", "project_name")
SWITCHES = ("use_cache", "skip_op_error", "open_tracer", "strict_preflight")
PATHS = ("dataset_path", "export_path")
MAX_PROCESSES = 64

# Data-Juicer drops the dot of "5.5KB" and reads 55 KB, so a whole number it must be
BYTES = re.compile(r"([0-9]{1,30}) ?(?:([KMGTPEZY])i?B)?", re.IGNORECASE)

# no exponent: Fraction("1e999999999") never ends
RATIO = re.compile(r"-?[0-9]{1,350}[:/][0-9]{1,350}")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: filters in order, then deduplicators, then mappers, and the fields that they read.

    process: (OP, parameters) as Data-Juicer gets them. text, images, videos: field names, None where
    there is none. ignored: keys of the file that play no part (its data and export paths).
    """

    process: tuple[Entry, ...]
    text: str | None = "text"
    images: str | None = None
    videos: str | None = None
    np: int = 1
    project_name: str | None = None
    ignored: tuple[str, ...] = field(default=(), compare=False)

    @property
    def filters(self) -> tuple[Entry, ...]:
        """What decides of each row by itself whether it stays."""
        return tuple(entry for entry in self.process if entry[0] not in MAPPERS and entry[0] not in DEDUPLICATORS)

    @property
    def deduplicators(self) -> tuple[Entry, ...]:
        """What compares the rows that the filters keep, always after them."""
        return tuple(entry for entry in self.process if entry[0] in DEDUPLICATORS)

    @property
    def mappers(self) -> tuple[Entry, ...]:
        """The mappers, always last."""
        return tuple(entry for entry in self.process if entry[0] in MAPPERS)

    @property
    def ops(self) -> tuple[Op, ...]:
        """The catalogue's entry of each filter."""
        return tuple(get_op(name) for name, _ in self.filters)

    def yaml(self, header: Sequence[str] = ()) -> str:
        """The recipe as Data-Juicer YAML, under comment lines.

        header: each becomes one comment line, line breaks included.
        """
        content: dict[str, Any] = {
            "project_name": None if self.project_name is None else one_line(self.project_name),
            "np": self.np,
            "text_keys": self.text or self.images or self.videos,  # Data-Juicer insists on some column
            "image_key": self.images,
            "video_key": self.videos,
            "use_cache": False,  # or the Hugging Face cache grows at every run
            "skip_op_error": False,  # or an unreadable image silently drops its whole batch
            "open_tracer": False,
            "strict_preflight": False if self._fails_the_check_of_types() else None,
            "process": [{name: dict(params)} for name, params in self.process],
        }
        content = {key: value for key, value in content.items() if value is not None}
        body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)
        comments = [f"# {one_line(line)}".rstrip() for line in (*header, *self._advice())]
        return "\n".join([*comments, body])

    def _fails_the_check_of_types(self) -> bool:
        """True where Data-Juicer's own check of types would refuse a bound that its OP takes."""
        return any(
            (bounds.check == "none" and end in params)
            or (bounds.check == "whole" and isinstance(params.get(end), float) and not params[end].is_integer())
            for op, (_, params) in zip(self.ops, self.filters, strict=True)
            for bounds in op.statistics.values()
            for end in (bounds.low, bounds.high)
            if end
        )

    def _advice(self) -> list[str]:
        """How to run it, and what `dj-process` needs beyond this file to keep exactly the same rows."""
        lines = ["Run: dj-process --config THIS --dataset_path IN.jsonl --export_path OUT.jsonl, or djsb apply."]
        for name, kind in ((self.images, "image"), (self.videos, "video")):
            if name and any(kind in op.modalities for op in self.ops):
                lines.append(f"dj-process reads {name!r} as lists of paths and keeps rows with none: remove those.")
        for token, modality in ((IMAGE_TOKEN, "text+image"), (VIDEO_TOKEN, "text+video")):
            if any(op.modality == modality for op in self.ops):
                lines.append(f"dj-process needs one {token} for each file in {self.text!r}, or it keeps every row.")
        for name, params in self.filters:
            if name == "specified_numeric_field_filter" and params.get("min_value", -1) <= 0 <= params.get(
                "max_value", 1
            ):
                lines.append(f"dj-process drops rows whose {params.get('field_key')!r} is exactly 0.")
        if any(op.name == "image_subplot_filter" for op in self.ops):
            lines.append("dj-process finds subplots with OpenCV 4 only; with version 5 it keeps every row.")
        names = {name for name, _ in self.mappers}
        if "image_captioning_mapper" in names:
            lines.append(f"dj-process captions an image only where {self.text!r} holds {IMAGE_TOKEN} for it.")
        if "image_diffusion_mapper" in names:
            lines.append("dj-process writes new images beside the old ones, or to DJ_PRODUCED_DATA_DIR.")
        return lines


def one_line(text: str) -> str:
    """Text that cannot leave its line of YAML: blanks for line breaks and for all that does not print."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _short(value: Any) -> str:
    """An untrusted value for an error message."""
    if isinstance(value, dict | list):  # the repr of one with YAML aliases may be endless
        return f"a {'mapping' if isinstance(value, dict) else 'list'}"
    text = one_line(repr(value))
    return text if len(text) <= 60 else text[:57] + "…"


def recipe_yaml(
    slices: Sequence[Slice],
    fields: DatasetSection,
    *,
    name: str,
    header: Sequence[str] = (),
    mappers: Sequence[MapperStep] = (),
    root: Path | None = None,
) -> str:
    """The Data-Juicer recipe that keeps exactly the rows that all slices keep (`Slice.keeps`).

    Exactly means: values that differ, differ by 1e-10 or more; Data-Juicer itself tells no others apart.
    fields: names of the text, image and video fields. header: comment lines, such as the evidence. mappers: rewrite
    the kept rows; root: folder that the paths of their models start from.
    Raises: OpError for an OP or statistic that is not in the catalogue, or when two slices give the
    same OP different parameters.
    """
    filters = without_endless(merged([entry for s in slices for entry in slice_entries(s)]))
    _same_statistics(filters, name)
    process = (*filters, *(mapper_entry(m.op, dict(m.params), root or Path(), fields.text) for m in mappers))
    return Recipe(process, fields.text, fields.images, fields.videos, project_name=name).yaml(header)


def read_recipe(text: str, where: str, root: Path) -> Recipe:
    """Parse and check a recipe from an untrusted source.

    where: names it in errors. root: folder that relative model paths start from. Its dataset_path
    and export_path are ignored (`Recipe.ignored`): what is read and written is the caller's choice.

    Raises: StudyError for the file, OpError for an OP or a parameter, in one line that names the
    key and the remedy.
    """
    raw = _parse(text, where)
    for key in raw:
        if key not in (*KEYS, *SWITCHES, *PATHS):
            raise StudyError(f"{where}: {_short(key)} may not be set by a recipe; remove it")
    for key in SWITCHES:
        if raw.get(key, False) is not False:
            raise StudyError(f"{where}: {key} must be false, not {_short(raw[key])}; remove it")
    for key in ("image_key", "video_key", "project_name", *PATHS):
        if raw.get(key) is not None and not isinstance(raw[key], str):
            raise StudyError(f"{where}: {key} must be a string, not {_short(raw[key])}; mend or remove it")
    np = raw.get("np", 1)
    if not isinstance(np, int) or isinstance(np, bool) or not 1 <= np <= MAX_PROCESSES:
        raise StudyError(f"{where}: np must be 1 … {MAX_PROCESSES}, not {_short(np)}; mend or remove it")
    process = _process(raw.get("process"), where, root)
    used = frozenset[str]().union(*(_modalities(name) for name, _ in process))
    images = raw.get("image_key") or ("images" if "image" in used else None)
    videos = raw.get("video_key") or ("videos" if "video" in used else None)
    key = _text_key(raw.get("text_keys"), where) or ("text" if "text" in used else None)
    if "text" not in used and key in (images, videos):  # as `Recipe.yaml` writes that there is no text
        key = None
    for entry in process:
        if entry[1].get("caption_key", key) != key:
            raise OpError(f"{where}: {entry[0]}: caption_key must be the text field, {key!r}; mend or remove it")
    ignored = tuple(k for k in PATHS if raw.get(k) is not None)
    return Recipe(process, key, images, videos, np, raw.get("project_name"), ignored)


def _parse(text: str, where: str) -> dict[Any, Any]:
    raw = parse_yaml(text, where)
    if not isinstance(raw, dict):
        raise StudyError(f"{where} is not a mapping of fields; a recipe has a list named process")
    return raw


def _text_key(value: Any, where: str) -> str | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, str):
        return value
    raise StudyError(f"{where}: text_keys must be the name of one field, not {_short(value)}; mend or remove it")


def _process(raw: Any, where: str, root: Path) -> tuple[Entry, ...]:
    if not isinstance(raw, list):
        raise StudyError(f"{where}: process must be a list of filters, not {_short(raw)}; add one")
    entries = []
    for i, item in enumerate(raw):
        at = f"{where}, process[{i}]"
        form = f"{at} must be one OP with its parameters, written `- name: {{…}}`"
        if not isinstance(item, dict) or len(item) != 1:
            raise OpError(f"{form}; it is {_short(item)}")
        [(name, params)] = item.items()
        if not isinstance(name, str) or not isinstance(params, dict | None):
            raise OpError(f"{form}; it is {_short(name)}: {_short(params)}")
        try:
            entries.append(check_entry(name[:100], params or {}, root))
        except OpError as error:
            raise OpError(f"{at}: {one_line(str(error))}") from None
        earlier = [before for before, _ in entries[:-1]]
        if name not in MAPPERS and any(before in MAPPERS for before in earlier):
            raise OpError(f"{at}: {name} follows a mapper, and filters come first; make two recipes of it")
        if name in earlier and name in DEDUPLICATORS:
            raise OpError(f"{at}: {name} stands twice; make two recipes of it")
        if name not in MAPPERS and name not in DEDUPLICATORS and any(before in DEDUPLICATORS for before in earlier):
            raise OpError(f"{at}: {name} follows a deduplicator, and filters come first; make two recipes of it")
    _same_statistics(entries, where)
    _nothing_inherited(entries, where)
    return tuple(entries)


def check_entry(name: str, params: Mapping[Any, Any], root: Path) -> Entry:
    """One entry of `process`: an OP of the catalogue, its own parameters and its bounds, nothing else.

    Raises: OpError that names the OP, the parameter and the remedy.
    """
    if name in MAPPERS:
        return mapper_entry(name, params, root)
    if name in DEDUPLICATORS:
        return name, dedup_params(name, params)
    if name.endswith("_deduplicator"):
        raise OpError(
            f"{name} is none of those that are applied here ({', '.join(DEDUPLICATORS)}); run it on what was applied: "
            "dj-process"
        )
    op = get_op(name)
    if op.asks:
        raise OpError(f"{name} asks a language model, which no recipe may do; write the rows that it scored instead")
    if op.barred:
        raise OpError(f"{name} cannot be applied: {op.barred}")
    own: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in params.items():
        if not isinstance(key, str) or not isinstance(value, _accepted(op, key)):
            raise OpError(f"{name}: {_short(key)} may not be {_short(value)} in a recipe; remove it")
        if key in op.fixed and value == op.fixed[key]:
            continue
        if key == op.model or key in op.params:
            own[key] = value
        else:
            _check_bound(op, key, value)
            rest[key] = value
    for b in op.statistics.values():
        if b.low in rest and b.high in rest and b.low and b.high:
            low, high = rest[b.low], rest[b.high]
            if (_number(low, b.number) or 0) > (_number(high, b.number) or 0):
                raise OpError(f"{name}: {b.low} {_short(low)} is above {b.high} {_short(high)}; swap them")
    return name, _own_params(op, own, root) | rest


def _accepted(op: Op, key: Any) -> Any:
    """The types that a parameter may have in a recipe: lists only where the catalogue says so."""
    return list if op.params.get(key) in ("fields", "words", "rows") else str | int | float


def mapper_entry(name: str, params: Mapping[Any, Any], root: Path, text: str | None = None) -> Entry:
    """A mapper's entry: its parameters, and what makes it give one row for each and ask no other model.

    text: the text field, where the entry does not name it. Raises: OpError.
    """
    fixed = MAPPERS_FIXED.get(name, {})
    own = {key: value for key, value in params.items() if key not in fixed and key != "caption_key"}
    for key in set(fixed) & set(params):
        if params[key] != fixed[key]:
            raise OpError(f"{name}: {key} must be {fixed[key]}, not {_short(params[key])}; mend or remove it")
    for key, value in own.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float):
            raise OpError(f"{name}: {_short(key)} may not be {_short(value)} in a recipe; remove it")
    try:
        checked = check_mapper(name, own, root, anywhere=True)
    except (RuntimeError, ValueError, OSError) as error:  # a path of an unknown user, or with a null byte
        raise OpError(f"{name}: {mapper_model(name)} is no path ({error}); give a local folder") from None
    if problem := mapper_needs(name, checked):
        raise OpError(f"{name} {problem}")
    if name == "image_diffusion_mapper":
        fixed = {**fixed, "caption_key": params.get("caption_key", text or "text")}
    return name, {**checked, **fixed}


def _modalities(name: str) -> frozenset[str]:
    """The fields that an OP reads."""
    if name in DEDUPLICATORS:
        return frozenset([DEDUPLICATORS[name]])
    return mapper_fields(name)[0] if name in MAPPERS else get_op(name).modalities


def _own_params(op: Op, own: dict[str, Any], root: Path) -> dict[str, Any]:
    try:
        checked = as_written(op.name, check_params(op.name, own, root))
        folder = checked.get(op.model or "")
        local = folder is None or hub.NAME.fullmatch(folder) or Path(folder).is_dir()
    except (RuntimeError, ValueError, OSError) as error:  # a path of an unknown user, or with a null byte
        raise OpError(f"{op.name}: {op.model} is no path ({error}); give a local folder") from None
    if not local:
        raise OpError(f"{op.name}: {op.model} {_short(folder)} is no local folder; put the weights there")
    return checked


def _check_bound(op: Op, key: str, value: Any) -> None:
    """Raises: OpError when the key bounds nothing of the OP, or its value is not as the OP reads it."""
    bounds: dict[str, Bounds] = {p: b for b in op.statistics.values() for p in (b.low, b.high) if p}
    listed = any(b.list_valued for b in op.statistics.values())
    flags = FLAGS if not op.statistics or any(b.keeps == "range" for b in op.statistics.values()) else ()
    if key in bounds:
        right, form = _number(value, bounds[key].number) is not None, _FORMS[bounds[key].number]
    elif key in flags:
        right, form = isinstance(value, bool), "true or false"
    elif key == "any_or_all" and listed:
        right, form = value in ("any", "all"), "any or all"
    else:
        raise OpError(f"{op.name}: {_short(key)} may not be set by a recipe; remove it")
    if not right:
        raise OpError(f"{op.name}: {key} does not take {_short(value)}; write {form}")


_FORMS: dict[Number, str] = {
    "float": "a number",
    "int": "a whole number",
    "bytes": "digits in quotes, with KB, MB, GB or TB after them or nothing",
    "ratio": "two whole numbers in quotes, such as '16/9'",
}


def _number(value: Any, number: Number) -> int | float | Fraction | None:
    """A bound as a number that can be compared; None when it is not written as the OP reads it."""
    if isinstance(value, str):
        if number == "bytes" and (match := BYTES.fullmatch(value)):
            return int(match[1]) << 10 * " KMGTPEZY".index((match[2] or " ").upper())
        if number == "ratio" and RATIO.fullmatch(value):
            above, _, below = value.replace(":", "/").partition("/")
            return Fraction(int(above), int(below)) if int(below) else None
        return None
    if isinstance(value, bool) or number in ("bytes", "ratio"):
        return None
    if isinstance(value, int):
        return value
    return value if number == "float" and isinstance(value, float) and not math.isnan(value) else None


def _same_statistics(process: Sequence[Entry], where: str) -> None:
    """Refuse one OP with two sets of parameters: Data-Juicer would reuse the first one's statistic."""
    seen: dict[str, dict[str, Any]] = {}
    for name, params in process:
        if name in MAPPERS or name in DEDUPLICATORS:
            continue
        op = get_op(name)
        own = {key: value for key, value in params.items() if key in op.params or key == op.model}
        if "field_key" in own:
            _refuse_taken(str(own["field_key"]), process, where)
            continue
        if seen.setdefault(name, own) != own:
            names = ", ".join(sorted({*own, *seen[name]}))
            raise OpError(
                f"{one_line(where)}: {name} stands twice with different parameters ({names}), but "
                "Data-Juicer computes its statistic once; make two recipes and apply one after the other"
            )


def _refuse_taken(field_key: str, process: Sequence[Entry], where: str) -> None:
    """Refuse a field that is called like the statistic of another filter: Data-Juicer would take one for the other."""
    if other := next(
        (n for n, _ in process if not (n in MAPPERS or n in DEDUPLICATORS) and field_key in get_op(n).statistics), None
    ):
        raise OpError(
            f"{one_line(where)}: the field {one_line(field_key)} is called like the statistic of {other}, which "
            "Data-Juicer would take for it; make two recipes and apply one after the other"
        )


def _nothing_inherited(process: Sequence[Entry], where: str) -> None:
    """Refuse what an entry would silently take from the entry of the same OP above it."""
    seen: dict[str, set[str]] = {}
    for i, (name, params) in enumerate(process):
        above = seen.setdefault(name, set())
        if absent := ", ".join(sorted(above - set(params))):
            raise OpError(
                f"{where}, process[{i}]: {name} must set {absent} again, or Data-Juicer takes it from the entry above"
            )
        above |= set(params)
