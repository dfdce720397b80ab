"""Evaluation sets as clip_benchmark keeps them: `evaluation.sets`, each a folder of WebDataset shards.

A folder has test/*.tar and test/nshards.txt. With classnames.txt and zeroshot_classification_templates.txt it is one of
classes, whose samples have an image and a .cls; else one of retrieval, with a caption a line in .txt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.base import machine
from engine.base.arrays import save_array
from engine.base.errors import DataError
from engine.base.ids import content_id
from engine.base.paths import resolve
from engine.data.dataset import Dataset, as_list
from engine.data.images import check_whole
from engine.data.judged import Judged, Side
from engine.data.media import locate
from engine.data.readers.webdataset import KINDS
from engine.records.accounting import Accounting
from engine.records.metric import Metric
from engine.settings.data import DatasetSection
from engine.settings.study import Study
from engine.tasks.clip.checkpoint import Processor
from engine.tasks.contract import Rows
from engine.tasks.shared.batches import Normal, to_pixels
from engine.tasks.shared.caches import make_caches, read_meta
from engine.tasks.shared.images import cache_images
from engine.tasks.shared.items import judged_items
from engine.tasks.shared.media import form_of
from engine.tasks.shared.packed import open_media
from engine.tasks.shared.tokens import Encode

if TYPE_CHECKING:
    import torch

CLASSES, TEMPLATES, SHARDS = "classnames.txt", "zeroshot_classification_templates.txt", "nshards.txt"
PLACE = re.compile(r"\{c?\}")  # of the class name in a template
MEAN = "sets_mean"
# what DataComp's mean counts of a set, by words in the name of its folder; of others the accuracy
COUNTED = {"caltech101": "per_class", "fgvc_aircraft": "per_class", "flowers": "per_class", "pets": "per_class",
           "iwildcam": "f1"}  # fmt: skip
OF_CLASSES, OF_RETRIEVAL = ("accuracy", "per_class", "f1"), ("recall", "image_to_text_r1", "text_to_image_r1")
Features = Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True)
class EvaluationSet:
    """One of `evaluation.sets`. classes: empty for a set of retrieval. index: folder of what readers keep."""

    name: str
    folder: Path
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    index: Path

    @property
    def counted(self) -> str:
        """The metric that the mean over sets counts."""
        if not self.classes:
            return "recall"
        return next((metric for word, metric in COUNTED.items() if word in self.folder.name), "accuracy")

    @cached_property
    def data(self) -> Dataset:
        """Its samples."""
        place = self.folder / "test" if (self.folder / "test").is_dir() else self.folder
        shards = [file for file in place.glob("*.tar") if file.is_file()]
        if not shards:
            raise DataError(f"evaluation.sets.{self.name}: {place} has no *.tar; give the folder of a WebDataset")
        told = _lines(place / SHARDS)
        if told and told[0].strip() != str(len(shards)):
            raise DataError(
                f"evaluation.sets.{self.name}: {place / SHARDS} says {told[0][:20]} shards, and {len(shards)} are "
                "there; download the others"
            )
        plain = Dataset(place, DatasetSection(path=str(place), text=None), self.index)
        names = {key for row in plain.reader.read(0, 100) for key in row}
        image = next((name for name in ("image", *KINDS["image"]) if name in names), None)
        if image is None:
            raise DataError(f"evaluation.sets.{self.name}: the samples in {place} have no image")
        return Dataset(place, DatasetSection(path=str(place), text=None, images=image), self.index)

    def read(self, max_bad: float) -> Samples:
        """Its labels or captions. Raises: DataError where more than that share of the samples cannot be used."""
        data, field = self.data, self.data.fields.images or ""
        good, left = np.zeros(len(data), bool), Counter[str]()
        labels, captions = np.full(len(data), -1, np.int64), list[tuple[int, str]]()
        for start, stop in data.chunks(1_000):
            for number, row in enumerate(data.reader.read(start, stop, [field, "cls", "txt"]), start):
                try:
                    check_whole(locate(as_list(row[field])[0], data.path, data.path))
                    if self.classes:
                        labels[number] = _label(row, len(self.classes))
                    else:
                        captions += [(number, line) for line in _captions(row)]
                    good[number] = True
                except KeyError:
                    left["without an image"] += 1
                except (OSError, ValueError) as error:
                    machine.refuse(error, f"evaluation set {self.name}")
                    left[str(error).split(":")[0][:60]] += 1
        what = (
            f"{len(self.classes)} classes, {len(self.templates)} templates"
            if self.classes
            else f"{len(captions)} captions"
        )
        note = "; ".join(filter(None, (what, f"the mean counts {self.counted}", data.reader.note)))
        found = Accounting(
            f"evaluation set {self.name}", len(data), int(good.sum()), tuple(left.most_common()), note, "samples"
        )
        if not good.any() or 1 - good.mean() > max_bad:
            raise DataError(f"{found.line}; more than dataset.max_bad of the set cannot be used: look at {data.path}")
        return Samples(good, labels, captions, found)


@dataclass(frozen=True)
class Samples:
    """good: (samples,) those that are used. labels: −1 where there is none. captions: (sample, text) each."""

    good: NDArray[np.bool_]
    labels: NDArray[np.int64]
    captions: list[tuple[int, str]]
    accounting: Accounting


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}); copy it again") from None


def _label(row: dict[str, Any], classes: int) -> int:
    text = str(row.get("cls", "")).strip()
    if not text.isdecimal():
        raise ValueError("without a class")
    if int(text) >= classes:
        raise ValueError(f"of a class beyond {CLASSES}")
    return int(text)


def _captions(row: dict[str, Any]) -> list[str]:
    if not (found := [line.strip() for line in str(row.get("txt", "")).splitlines() if line.strip()]):
        raise ValueError("without a caption")
    return found


def sets_of(study: Study, folder: Path) -> list[EvaluationSet]:
    """The study's sets, in their order. folder: the study's. Raises: DataError."""
    found = []
    for name, path in study.evaluation.sets.items():
        place = resolve(folder, path)
        if not place.is_dir():
            raise DataError(f"evaluation.sets.{name}: there is no folder {place}")
        classes, templates = _lines(place / CLASSES), _lines(place / TEMPLATES)
        if classes and not templates:
            raise DataError(
                f"evaluation.sets.{name}: {place / TEMPLATES} is missing; it has a prompt a line with {{c}}"
            )
        if odd := next((t for t in templates if len(PLACE.findall(t)) != 1), None):
            raise DataError(f"evaluation.sets.{name}: {place / TEMPLATES}: {odd[:60]!r} needs one {{c}} for the class")
        found.append(EvaluationSet(name, place, tuple(classes), tuple(templates), folder / ".djsb" / "cache" / "rows"))
    return found


def judged(study: Study, folder: Path) -> list[Judged]:
    """The images of each set, to be compared with those of the training rows."""
    return [
        Judged(one.name, "images", "images", Side(one.data, one.data.path, np.ones(len(one.data), bool)))
        for one in sets_of(study, folder)
    ]


def key_of_sets(study: Study, folder: Path) -> list[Any]:
    """What the key of a task's caches has of the sets."""
    return [[s.name, s.data.fingerprint, s.classes, s.templates, str(s.folder)] for s in sets_of(study, folder)]


def prepare_sets(
    study: Study, folder: Path, processor: Processor, encode: Encode, target: Path, workers: int
) -> dict[str, Any]:
    """Decode the images of each set, once a study, and encode its texts into `target`; what meta.json has of them."""
    about: dict[str, Any] = {}
    for one in sets_of(study, folder):
        place = _images(one, study, folder, processor, workers)
        if one.classes:
            texts = [PLACE.sub(lambda _, c=c: c, t) for t in one.templates for c in one.classes]  # type: ignore[misc]
        else:
            texts = (place / "captions.txt").read_text(encoding="utf-8").split("\n")
        save_array(target / f"set-{one.name}-tokens.npy", encode(texts))
        about[one.name] = {
            "folder": place.name, "classes": len(one.classes), "templates": len(one.templates), "counted": one.counted
        }  # fmt: skip
    return about


def _images(one: EvaluationSet, study: Study, folder: Path, processor: Processor, workers: int) -> Path:
    """The folder of a set's images, labels and captions; it is the same for every tokenizer and all training rows."""
    data, medium = one.data, processor.medium
    form = "raw" if form_of(study.cache, len(data), int(np.prod(medium.shape))) == "raw" else "exact"
    key = content_id([data.fingerprint, one.classes, str(one.folder), repr(medium), form, study.dataset.max_bad])

    def make(target: Path) -> dict[str, Any]:
        samples = one.read(study.dataset.max_bad)
        rows = Rows(data, data.path, samples.good, form=form)  # type: ignore[arg-type]
        cache_images(rows, medium, target, "images", workers)
        save_array(target / "good.npy", samples.good)
        save_array(target / "labels.npy", samples.labels)
        save_array(target / "owners.npy", np.asarray([number for number, _ in samples.captions], np.int64))
        (target / "captions.txt").write_text("\n".join(text for _, text in samples.captions), encoding="utf-8")
        return {"accounting": samples.accounting.to_json()}

    return make_caches(folder, f"clip-set-{key}", make)


def metrics_of_sets(about: Mapping[str, Any]) -> list[Metric]:
    """Those of each set, and the mean, which counts in the ranking."""
    if not about:
        return []
    each = [
        Metric(f"{name}_{metric}", True, 0, 1, main=False)
        for name, told in about.items() for metric in (OF_CLASSES if told["classes"] else OF_RETRIEVAL)
    ]  # fmt: skip
    return [Metric(MEAN, True, 0, 1), *each]


def set_features(
    image: Features, text: Features, device: torch.device, prepared: Path, name: str, normal: Normal, step: int
) -> dict[str, torch.Tensor]:
    """(…, samples, projection) `images`, and (…, classes, projection) `classes` or (…, captions, projection) `texts`.

    image, text: see `task._features`. step: rows at once.
    """
    import torch

    about = read_meta(prepared)["sets"][name]
    place = prepared.parent / about["folder"]
    good = _judged(place, name)
    cache, tokens = open_media(place, "images"), np.load(prepared / f"set-{name}-tokens.npy", mmap_mode="r")

    def read(ids: NDArray[np.int32]) -> torch.Tensor:
        return text(torch.from_numpy(ids.astype(np.int64)).to(device))

    found = {
        "images": torch.cat(
            [image(to_pixels(cache[good[at : at + step]], device, normal)) for at in range(0, len(good), step)], -2
        )
    }
    if not about["classes"]:
        tokens = tokens[_captions_of(place, good)[0]]
        return found | {"texts": torch.cat([read(tokens[at : at + step]) for at in range(0, len(tokens), step)], -2)}
    shaped = tokens.reshape(about["templates"], about["classes"], -1)
    several = max(1, step // about["templates"])
    parts = []
    for at in range(0, about["classes"], several):
        some = shaped[:, at : at + several]
        made = read(some.reshape(-1, some.shape[-1]))
        parts.append(made.reshape(*made.shape[:-2], *some.shape[:2], -1).mean(-3))
    classes = torch.cat(parts, -2)
    return found | {"classes": classes / classes.norm(dim=-1, keepdim=True)}


def _judged(place: Path, name: str) -> NDArray[np.int64]:
    """The samples that count."""
    good = np.flatnonzero(np.load(place / "good.npy"))
    return good[judged_items([f"{name} {number}" for number in good.tolist()])]


def _captions_of(place: Path, good: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Places of the captions that belong to the samples that count, and the sample of each."""
    owners = np.load(place / "owners.npy")
    places = np.flatnonzero(np.isin(owners, good))
    return places, owners[places]


def set_scores(features: Mapping[str, torch.Tensor], prepared: Path, name: str) -> dict[str, float]:
    """The metrics of one model on a set, from its `set_features`."""
    import torch

    place = prepared.parent / read_meta(prepared)["sets"][name]["folder"]
    good, images = _judged(place, name), features["images"]
    if "classes" in features:
        said = np.concatenate(
            [(part @ features["classes"].T).argmax(-1).cpu().numpy() for part in torch.split(images, 4096)]
        )
        labels = np.load(place / "labels.npy")[good]
        right, counts = said == labels, np.bincount(labels)
        there = counts > 0
        hits, claims = np.bincount(labels, right, len(counts)), np.bincount(said, minlength=len(counts))[: len(counts)]
        f1 = 2 * hits[there] / (counts[there] + claims[there])
        values = (float(right.mean()), float((hits[there] / counts[there]).mean()), float(f1.mean()))
        return {f"{name}_{metric}": value for metric, value in zip(OF_CLASSES, values, strict=True)}
    texts, (_, owners) = features["texts"], _captions_of(place, good)
    forth = np.mean(owners[_nearest(images, texts)] == good)
    back = np.mean(good[_nearest(texts, images)] == owners)
    values = (float(forth + back) / 2, float(forth), float(back))
    return {f"{name}_{metric}": value for metric, value in zip(OF_RETRIEVAL, values, strict=True)}


def _nearest(queries: torch.Tensor, targets: torch.Tensor) -> NDArray[np.int64]:
    """The place of the target that is nearest to each query."""
    import torch

    return np.concatenate([(part @ targets.T).argmax(-1).cpu().numpy() for part in torch.split(queries, 1024)])


def with_mean(scores: dict[str, float], about: Mapping[str, Any]) -> dict[str, float]:
    """The same with the mean of what counts of each set, as DataComp's over its sets."""
    if not about:
        return scores
    counted = [scores[f"{name}_{told['counted']}"] for name, told in about.items()]
    return {**scores, MEAN: float(np.mean(counted))}
