"""Checkpoints in local folders: what the study names, what packages it needs, adapters, and how they are written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.base.durable import written_whole
from engine.base.errors import StudyError
from engine.base.paths import resolve
from engine.settings.study import Study
from engine.tasks.shared.weights import adapter_gaps


def checkpoint_of(study: Study, folder: Path) -> Path | None:
    """The folder that `model.checkpoint` names. folder: the study's."""
    return None if study.model.checkpoint is None else resolve(folder, study.model.checkpoint)


def need_packages(study: Study, needed: Mapping[str, bool], extra: str) -> None:
    """Raises: StudyError when a package that is needed is missing. extra: of djsb, which brings them."""
    if missing := [name for name, wanted in needed.items() if wanted and find_spec(name) is None]:
        raise StudyError(f"task {study.task} needs {' and '.join(missing)}; install with: pip install 'djsb[{extra}]'")


def read_config(folder: Path, field: str, kinds: Sequence[str] = ()) -> dict[str, Any]:
    """The config.json of a `transformers` checkpoint that the study names in `field`.

    kinds: what its model_type may be; empty: anything. Raises: StudyError when the folder is none, or of another kind.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise StudyError(
            f"{field}: {folder} is no transformers checkpoint ({error}); give the folder of one"
        ) from error
    if kinds and (kind not in kinds or "mm_projector_type" in config):
        own = kind == "internvl_chat" or "mm_projector_type" in config
        remedy = f"; write it as one first: djsb convert {folder} TARGET" if own else ""
        name = f"{kind} in its authors' layout" if "mm_projector_type" in config else kind
        raise StudyError(f"{field}: {folder} is a {name} model; this needs one of {', '.join(kinds)}{remedy}")
    return config


def whole_config(folder: Path, field: str) -> Any:
    """The configuration of a checkpoint as `transformers` reads it, what its file leaves out filled in.

    Raises: StudyError.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises what it happens to meet: OSError, ValueError, TypeError, …
        raise StudyError(
            f"{field}: {folder}/config.json cannot be read ({_first_line(error)}); copy it again"
        ) from error


def load_tokenizer(source: Path, **options: Any) -> Any:
    """The tokenizer of a checkpoint's folder. options: of `from_pretrained`.

    Raises: StudyError when it is missing or not readable.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(source), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # transformers raises what it happens to meet: OSError, ValueError, TypeError, …
        raise StudyError(
            f"{source} has no tokenizer that can be read ({_first_line(error)}); copy its tokenizer files there"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def is_adapted(model: Any) -> bool:
    """True for a peft model."""
    return hasattr(model, "peft_config")


def adapter_of(init: str | None) -> str | None:
    """The folder `init`, where it holds low-rank weights and no whole model."""
    return init if init is not None and (Path(init) / "adapter_config.json").exists() else None


def with_lora(
    model: Any, study: Study, adapter: str | None, targets: str | Sequence[str], what: str, beside: Sequence[str] = ()
) -> Any:
    """The model with low-rank weights on its layers `targets`, new or those of the folder `adapter`.

    what: names the model in messages. beside: layers that are trained whole. Raises: StudyError.
    """
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors import SafetensorError

    if adapter is not None:
        folder = Path(adapter)
        if not (folder / "adapter_model.safetensors").exists():
            raise StudyError(f"{folder} has no adapter_model.safetensors; save its adapters as safetensors")
        try:
            found = PeftModel.from_pretrained(model, adapter, is_trainable=True, local_files_only=True)
        except (RuntimeError, ValueError, OSError, SafetensorError) as error:
            raise StudyError(f"the adapters in {folder} do not fit the {what} ({_first_line(error)})") from error
        adapter_gaps(found, folder)
        return found
    lora = study.lora
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float does as well
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=list(beside) or None,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise StudyError(f"lora.targets {lora.targets} name no layer of the {what} ({error})") from error


def save(model: Any, folder: Path, beside: Iterable[Path] = ()) -> None:
    """A checkpoint (safetensors) as `save_pretrained` writes it, with files beside it, complete or absent."""
    with written_whole(folder) as scratch:
        model.save_pretrained(scratch)
        for file in beside:
            if file.exists():
                shutil.copyfile(file, scratch / file.name)
