"""What a trial leaves on disk by the shapes of its model's weights: a checkpoint, and the state of a training."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from engine.settings.study import Study
from engine.tasks.contract import Kept

WEIGHT, MOMENTS = 4, 8  # bytes of each weight: as it is written, and AdamW's beside a trained one
# weights of our own presets, whose models take seconds to build
PRESETS = {
    "clip": {"tiny": 238529, "small": 6152065, "vit-b-32": 151277313, "vit-b-16": 149620737, "vit-l-14": 427616513},
    "lm": {"tiny": 149824, "small": 6843648, "smol-135m": 134515008},
    "t2v": {"tiny": 312576, "small": 34663488},
    "vlm": {"tiny": 420544, "small": 31647360},
}
Shapes = Mapping[str, tuple[int, ...]]


def shapes_in(*folders: Path) -> Shapes:
    """Shapes of the tensors in the safetensors of folders, by their headers; empty where there are none."""
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for number, folder in enumerate(folders):
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "np") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                    found[f"{number}.{name}"] = tuple(opened.get_slice(name).get_shape())
    return found


def of_preset(family: str, study: Study) -> Kept | None:
    """What is written of a preset's model, at most."""
    weights = PRESETS[family].get(study.model.preset)
    return None if weights is None else Kept(WEIGHT * weights, (WEIGHT + MOMENTS) * weights)


def of_shapes(
    shapes: Shapes, study: Study, trained: tuple[str, ...] = ("",), targets: tuple[str, ...] = ()
) -> Kept | None:
    """What is written of a model; None where its weights are not known. trained: words in the names of what is trained.

    targets: layers that get low-rank weights, where the study asks for some.
    """
    if not shapes:
        return None
    if rank := study.lora.rank:
        layers = [s for name, s in shapes.items() if len(s) >= 2 and name.rpartition(".")[0].endswith(targets)]
        adapters = sum(rank * (shape[0] + prod(shape[1:])) for shape in layers)
        return Kept(WEIGHT * adapters, (WEIGHT + MOMENTS) * adapters)
    every = sum(map(prod, shapes.values()))
    some = sum(prod(shape) for name, shape in shapes.items() if any(word in name for word in trained))
    return Kept(WEIGHT * every, (WEIGHT + MOMENTS) * some)
