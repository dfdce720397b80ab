"""Models in the local cache of the Hugging Face hub, by the name that Data-Juicer gives them. Nothing is downloaded."""

from __future__ import annotations

import os
import re
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def cache() -> Path:
    """The folder of the local cache, as huggingface_hub finds it; its import takes a second."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    own = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home) / "hub"
    return Path(os.path.expandvars(own)).expanduser()


def snapshot(name: str) -> Path | None:
    """The folder of a model in the local cache, as its main branch stood when it was fetched; None without one."""
    if not NAME.fullmatch(name):
        return None
    folder = cache() / f"models--{name.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    found = folder / "snapshots" / commit
    return found if re.fullmatch(r"[0-9a-f]{40}", commit) and found.is_dir() else None


def command(name: str) -> str:
    """What fetches a model into the local cache."""
    return f"hf download {name}"
