"""Weights out of a folder of safetensors: every load counts the tensors, and refuses a model that is not all there.

The libraries fill what a file lacks with random numbers, and say so in a log at most.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from engine.base.durable import is_whole, write_text
from engine.base.errors import StudyError
from engine.base.ids import content_id
from engine.records.accounting import Accounting, accounting_from_json

NAMED = 3  # tensors that a message names
LFS = b"version https://git-lfs"
HEAD = 100_000_000  # bytes of a safetensors file's head at most
FEW_BITS = {"I8", "U8", "F8_E4M3", "F8_E5M2", "F4", "F8_E8M0", "I32", "I16"}  # of weights: packed or quantised
EARLIER = "the checkpoint of an earlier trial"


@dataclass(frozen=True)
class Weights:
    """Weights that a study needs.

    field: of the study, or what they are. kind: the class that reads them, `transformers.CLIPModel`. may_miss: words
    in the names of tensors that may be missing, as the task makes them itself or does not use them.
    """

    field: str
    kind: str
    folder: Path
    may_miss: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Another one for other files, and where one of them has changed."""
        files = sorted(f for f in self.folder.iterdir() if f.suffix in (".json", ".safetensors"))
        state = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        return content_id([self.field, self.kind, str(self.folder.resolve()), self.may_miss, state])

    def load(self, **options: Any) -> Any:
        """The model, all of its tensors read. options: of `from_pretrained`. Raises: StudyError."""
        return self.counted(**options)[0]

    def counted(self, **options: Any) -> tuple[Any, Accounting]:
        """The model and its tensors read of those expected. Raises: StudyError that names some that are not."""
        if not any(self.folder.glob("*.safetensors")):
            raise StudyError(
                f"{self.field}: {self.folder} has no *.safetensors; save its weights as safetensors "
                "(pickled ones are never opened)"
            )
        self._refuse_files()
        library = self.kind.partition(".")[0]
        with _quiet(library if library == "diffusers" else "transformers"):  # models of our own are of its classes
            model, report = self._read(options)
        expected = _names(model)
        shapes = {name for name, *_ in report["mismatched_keys"]} & expected
        missing = set(report["missing_keys"]) & expected
        new = {name for name in missing if any(word in name for word in self.may_miss)}
        more = set(report["unexpected_keys"])
        if report.get("error_msgs") or shapes or missing - new:
            raise StudyError(self._refusal(len(expected), missing - new, shapes, more))
        note = self.kind.rpartition(".")[2] + (f"; not of it, and not used: {some_names(more)}" if more else "")
        left = (("missing and not needed", len(new)),) if new else ()
        return model, Accounting(
            f"weights of {self.field}", len(expected), len(expected) - len(new), left, note, "tensors"
        )

    def _refuse_files(self) -> None:
        """Raises: StudyError for quantised weights, pointers in place of files, and shards that are not there."""
        if method := _quantised(self.folder):
            raise StudyError(
                f"{self.field}: the weights in {self.folder} are quantised ({method}); give the model as its authors "
                "trained it, in bf16, fp16 or fp32"
            )
        for file in sorted(self.folder.glob("*.safetensors")):
            with file.open("rb") as opened:
                if opened.read(len(LFS)) == LFS:
                    raise StudyError(
                        f"{self.field}: {file} is a pointer of git-lfs, not weights; run `git lfs pull` there"
                    )
        for index in self.folder.glob("*.safetensors.index.json"):
            named = set(_json(index).get("weight_map", {}).values())
            gone = {str(name) for name in named if not (self.folder / str(name)).is_file()}
            if gone:
                raise StudyError(
                    f"{self.field}: {len(gone)} of {len(named)} files of {self.folder} are missing: "
                    f"{some_names(gone)}; copy them there"
                )

    def _read(self, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        library, _, name = self.kind.rpartition(".")
        maker: Any = getattr(import_module(library), name)
        if name.startswith("Auto"):
            options = {"trust_remote_code": False, **options}
        try:
            loaded: tuple[Any, dict[str, Any]] = maker.from_pretrained(
                str(self.folder), local_files_only=True, use_safetensors=True, output_loading_info=True,
                ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
        except MemoryError:
            raise
        except Exception as error:  # the libraries raise what they happen to meet
            if "allocate memory" in str(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise StudyError(
                f"{self.field}: {self.folder} cannot be read as a {name} ({reason}); copy it again, or give the "
                "folder of one"
            ) from error
        return loaded

    def _refusal(self, expected: int, missing: set[str], shapes: set[str], more: set[str]) -> str:
        name = self.kind.rpartition(".")[2]
        parts = [("missing", missing), ("of another shape", shapes), ("not of it", more)]
        told = "; ".join(f"{word}: {some_names(names)}" for word, names in parts if names)
        architectures = _architectures(self.folder)
        remedy = f"its config.json names {architectures}; " if architectures else ""
        return (
            f"{self.field}: {expected - len(missing) - len(shapes)} of {expected} tensors of a {name} are in "
            f"{self.folder} ({told}); {remedy}give the folder of a {name} whose config.json and weights belong together"
        )


def accounted(folder: Path, needed: Sequence[Weights]) -> list[Accounting]:
    """The accounting of weights that a study needs; each is loaded once as long as its files stay as they are.

    folder: the study's. Raises: StudyError.
    """
    return [_accounted(folder, weights) for weights in needed]


def _accounted(folder: Path, weights: Weights) -> Accounting:
    known = folder / ".djsb" / "cache" / f"weights-{weights.key}.json"
    if is_whole(known, sums=True):
        return accounting_from_json(json.loads(known.read_text(encoding="utf-8")))
    _, found = weights.counted()
    write_text(known, json.dumps(found.to_json(), allow_nan=False))
    return found


def _names(model: Any) -> set[str]:
    """The tensors that a file must have: parameters and kept buffers, tied ones once."""
    kept = set(model.state_dict())
    return {name for name, _ in [*model.named_parameters(), *model.named_buffers()] if name in kept}


def some_names(names: set[str]) -> str:
    """The first of them by name, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(sorted(names)[:NAMED]) + more


def _json(file: Path) -> dict[str, Any]:
    """What a file of JSON says; nothing where it cannot be read, which its reader then tells."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _quantised(folder: Path) -> str:
    """How the weights of a folder are quantised; empty where they are not."""
    told = _json(folder / "config.json").get("quantization_config")
    if isinstance(told, dict):
        return str(told.get("quant_method") or "quantization_config")
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            try:
                head = json.loads(opened.read(size)) if size <= HEAD else {}
            except ValueError:
                continue  # broken: its reader says so
        kinds = {one.get("dtype") for name, one in head.items() if name != "__metadata__" and name.endswith("weight")}
        if few := sorted(str(kind) for kind in kinds & FEW_BITS):
            return few[0]
    return ""


def _architectures(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return ", ".join(map(str, config.get("architectures") or [config.get("_class_name") or config["model_type"]]))
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return ""


@contextmanager
def _quiet(library: str) -> Iterator[None]:
    """Without the library's own report and progress: the refusal says it."""
    logger = logging.getLogger(library)
    level, bar = logger.level, False
    if library == "transformers":
        from transformers.utils import logging as own

        bar = own.is_progress_bar_enabled()
        own.disable_progress_bar()  # type: ignore[no-untyped-call]
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        if bar:
            own.enable_progress_bar()  # type: ignore[no-untyped-call]


def adapter_gaps(model: Any, folder: Path) -> None:
    """Refuse adapters of which a tensor is missing, or that hold more than the model takes.

    model: peft's, into which the folder's were loaded. Raises: StudyError.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        there = set(file.keys())
    expected = set(get_peft_model_state_dict(model))
    if there != expected:
        told = [("missing", expected - there), ("not of it", there - expected)]
        raise StudyError(
            f"the adapters in {folder} do not fit the model: "
            + "; ".join(f"{word}: {some_names(names)}" for word, names in told if names)
            + "; give those that were trained on it"
        )
