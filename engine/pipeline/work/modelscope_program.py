"""Trains by ModelScope, as its own program: `python modelscope_program.py SETTINGS.json`. It knows nothing of djsb."""

import json
import sys
from pathlib import Path
from typing import Any


def rows(path: str, split: str, names: dict[str, str]) -> Any:
    """A data set with its fields renamed."""
    from modelscope.msdatasets import MsDataset  # type: ignore[import-not-found]

    found = MsDataset.load(path, split=split).ds_instance
    for old, new in names.items():
        if old in found.features:
            found = found.rename_column(old, new)
    return found


def main() -> None:
    """Train to the end."""
    from modelscope.trainers import build_trainer  # type: ignore[import-not-found]

    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    def changed(config: Any) -> Any:
        config.merge_from_dict(settings)
        return config

    names = settings.get("key_remapping") or {}
    data = {name: rows(settings[name], split, names)
            for name, split in (("train_dataset", "train"), ("eval_dataset", "val")) if settings.get(name)}  # fmt: skip
    options = {"model": settings["model_name"], "work_dir": settings["work_dir"], "cfg_modify_fn": changed, **data}
    build_trainer(name=settings["trainer_name"], default_args=options).train()


if __name__ == "__main__":
    main()
