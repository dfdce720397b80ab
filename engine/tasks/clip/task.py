"""Task `clip`: image–text contrastive pre-training (Radford et al. 2021), judged zero-shot.

The model is a CLIPModel from a preset's config, or a local checkpoint of CLIP, SigLIP or open_clip.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.base.arrays import save_array
from engine.base.durable import written_whole
from engine.base.errors import DataError
from engine.base.ids import content_id
from engine.data.judged import Judged
from engine.records.accounting import Accounting, accounting_from_json
from engine.records.metric import Metric
from engine.settings.study import Study
from engine.tasks.clip.checkpoint import PROCESSOR, Processor, Source, source_of
from engine.tasks.clip.model import (
    PRESETS,
    build_model,
    crop_in,
    image_features,
    normal_of,
    shell,
    text_features,
    train,
)
from engine.tasks.clip.open_clip import BESIDE
from engine.tasks.clip.sets import judged as judged_sets
from engine.tasks.clip.sets import key_of_sets, metrics_of_sets, prepare_sets, set_features, set_scores, with_mean
from engine.tasks.contract import Job, Kept, Progress, Report, Rows, Traits
from engine.tasks.shared.batches import to_pixels
from engine.tasks.shared.caches import in_turn, make_caches, read_meta
from engine.tasks.shared.checkpoints import need_packages
from engine.tasks.shared.crops import crop_of
from engine.tasks.shared.images import Squares, cache_images
from engine.tasks.shared.items import judged_on, judged_rows
from engine.tasks.shared.kept import of_preset, of_shapes, shapes_in
from engine.tasks.shared.media import files_of, key_of
from engine.tasks.shared.packed import open_media
from engine.tasks.shared.procedure import as_trained, autocast
from engine.tasks.shared.tokens import cache_tokens, load_encoder, save_tokenizer, train_tokenizer
from engine.tasks.shared.trial import Training, TrainingTask
from engine.tasks.shared.weights import accounted

if TYPE_CHECKING:
    import torch

    from engine.tasks.clip.packed import Pack

RECALLS = (1, 5, 10)
PACKED = ("tiny", "small")  # presets
STEP = 256  # rows that are evaluated at once
PACK_ROWS = 64  # evaluated at once by every member; the same for all packs, as rounding hangs on it


def _processor(study: Study, source: Source | None) -> Processor:
    """How the study's model takes its images."""
    if source:
        return source.processor
    side = PRESETS[study.model.preset].image
    return Processor(side, edge=side)


def _trained(study: Study, processor: Processor) -> Squares:
    """The images that are trained on, as a cache holds them."""
    crop = crop_of(processor.side, study.train.crop)
    return crop.medium if crop else processor.medium


def _prepare_evaluation(study: Study, held: Rows | None, encode: Any, target: Path) -> dict[str, Any]:
    """Labels, class names and captions of the evaluation rows; what can be measured on them."""
    if held is None:
        return {"classes": [], "retrieval": False, "distinct_captions": 0}
    evaluation, good = held.data, held.good
    rows = [r for start, stop in evaluation.chunks(4096) for r in evaluation.reader.read(start, stop)]
    text, label = evaluation.fields.text, study.evaluation.label
    captions = [str((r.get(text) if text else None) or "") if ok else "" for r, ok in zip(rows, good, strict=True)]
    distinct = len(set(captions))
    # captions that many rows share cannot tell images apart, so retrieval would measure chance
    retrieval = text is not None and distinct >= max(2, 0.5 * len(rows))
    classes: list[str] = []
    if label is not None:
        names = [r.get(label) for r in rows]
        classes = sorted({str(n) for n in names if n is not None})
        if len(classes) < 2:
            raise DataError(
                f"{evaluation.path}: field {label!r} names {len(classes)} classes; "
                "set evaluation.label to a field of class names"
            )
        index = {c: i for i, c in enumerate(classes)}
        labels = [index[str(n)] if n is not None and ok else -1 for n, ok in zip(names, good, strict=True)]
        save_array(target / "eval-labels.npy", np.asarray(labels, np.int64))
        prompts = [p.replace("{}", c) for p in study.evaluation.prompts for c in classes]
        save_array(target / "eval-prompts.npy", encode(prompts))
    if not classes and not retrieval:
        raise DataError(
            f"{evaluation.path} can measure nothing: no evaluation.label, and its {distinct} distinct captions of "
            f"{len(rows)} rows cannot tell images apart; give labels or better captions"
        )
    ids = {c: i for i, c in enumerate(dict.fromkeys(captions))}
    save_array(target / "eval-captions.npy", np.asarray([ids[c] for c in captions], np.int64))
    save_array(target / "eval-tokens.npy", encode(captions))
    save_array(target / "eval-good.npy", good)
    return {"classes": classes, "retrieval": retrieval, "distinct_captions": distinct}


def evaluate(model: Any, study: Study, prepared: Path) -> dict[str, float]:
    """Zero-shot accuracy and likelihood (mean probability of the right class), recalls at 1, 5, 10."""
    import torch

    model.eval()
    image, text = as_trained(partial(image_features, model)), as_trained(partial(text_features, model))
    with torch.inference_mode():
        features = _features(image, text, model.device, prepared)
        scores, about = _scores(features, model.logit_scale, study, prepared), _sets(prepared)
        for name in about:
            found = set_features(image, text, model.device, prepared, name, normal_of(prepared), STEP)
            scores |= set_scores(found, prepared, name)
    return with_mean(scores, about)


def evaluate_pack(pack: Pack, study: Study, prepared: Path) -> list[dict[str, float]]:
    """What `evaluate` returns, of every member."""
    pack.towers.eval()
    image, text = as_trained(pack.image_features), as_trained(pack.text_features)
    features, about = _features(image, text, pack.device, prepared, PACK_ROWS), _sets(prepared)
    scores = [
        _scores({name: f[k] for name, f in features.items()}, scale, study, prepared)
        for k, scale in enumerate(pack.parameters["logit_scale"])
    ]
    for name in about:
        found = set_features(image, text, pack.device, prepared, name, normal_of(prepared), PACK_ROWS)
        for k, own in enumerate(scores):
            own |= set_scores({what: f[k] for what, f in found.items()}, prepared, name)
    return [with_mean(own, about) for own in scores]


def _sets(prepared: Path) -> dict[str, Any]:
    """What meta.json has of `evaluation.sets`."""
    about: dict[str, Any] = read_meta(prepared).get("sets", {})
    return about


def _features(
    image: Callable[[torch.Tensor], torch.Tensor],
    text: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
    prepared: Path,
    step: int = STEP,
) -> dict[str, torch.Tensor]:
    """(…, rows, projection) unit vectors of the good evaluation rows' `images` and `texts`, and of the `prompts`.

    image, text: give those of pixels (n, 3, side, side) and of ids (n, length). step: rows at once.
    """
    import torch

    meta = read_meta(prepared)
    if not (meta["classes"] or meta["retrieval"]):
        return {}
    good = judged_rows(np.load(prepared / "eval-good.npy"))
    cache = open_media(prepared, "eval-images")
    parts, normal = range(0, len(good), step), normal_of(prepared)
    found = {"images": torch.cat([image(to_pixels(cache[good[a : a + step]], device, normal)) for a in parts], -2)}
    if meta["classes"]:
        found["prompts"] = text(torch.from_numpy(np.load(prepared / "eval-prompts.npy").astype(np.int64)).to(device))
    if meta["retrieval"]:
        tokens = np.load(prepared / "eval-tokens.npy", mmap_mode="r")[good].astype(np.int64)
        found["texts"] = torch.cat([text(torch.from_numpy(tokens[a : a + step]).to(device)) for a in parts], -2)
    return found


def _scores(features: dict[str, torch.Tensor], scale: torch.Tensor, study: Study, prepared: Path) -> dict[str, float]:
    """The metrics of one model from its `_features` and its logit scale."""
    import torch

    scores: dict[str, float] = {}
    if not features:
        return scores
    good = judged_rows(np.load(prepared / "eval-good.npy"))
    images = features["images"]
    if "prompts" in features:
        labels = torch.from_numpy(np.load(prepared / "eval-labels.npy")[good]).to(images.device)
        prompts = features["prompts"]
        classes = prompts.reshape(len(study.evaluation.prompts), -1, prompts.shape[-1]).mean(0)
        logits = scale.exp() * images @ (classes / classes.norm(dim=-1, keepdim=True)).T
        labelled = labels >= 0
        right = logits[labelled].softmax(-1).gather(1, labels[labelled, None])
        scores["accuracy"] = float((logits[labelled].argmax(-1) == labels[labelled]).float().mean())
        scores["likelihood"] = float(right.mean())
    if "texts" in features:
        captions = torch.from_numpy(np.load(prepared / "eval-captions.npy")[good]).to(images.device)
        scores |= _recalls("image_to_text", images, features["texts"], captions)
        scores |= _recalls("text_to_image", features["texts"], images, captions)
    return scores


def _recalls(way: str, queries: torch.Tensor, targets: torch.Tensor, captions: torch.Tensor) -> dict[str, float]:
    """Share of queries with a right target among the k nearest; rows of one caption are all right."""
    hits = dict.fromkeys(RECALLS, 0)
    for start in range(0, len(queries), 512):
        near = (queries[start : start + 512] @ targets.T).topk(min(max(RECALLS), len(targets)), dim=-1).indices
        right = captions[near] == captions[start : start + 512, None]
        for k in RECALLS:
            hits[k] += int(right[:, :k].any(-1).sum())
    return {f"{way}_r{k}": n / len(queries) for k, n in hits.items()}


def save_model(model: Any, study: Study, prepared: Path, folder: Path) -> None:
    """The model with its tokenizer, and what its checkpoint says of images."""
    source = source_of(study, prepared.parents[2])
    with written_whole(folder) as scratch:
        model.save_pretrained(scratch)
        if source is None:
            save_tokenizer(prepared / "tokenizer.json", PRESETS[study.model.preset].length, scratch)
            return
        for name in (*BESIDE, *PROCESSOR):
            if (source.folder / name).is_file():
                shutil.copyfile(source.folder / name, scratch / name)


LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")  # that get low-rank weights, by the ends of names


class ClipTask(TrainingTask):
    """See the module."""

    traits = Traits(
        holds_back=True,
        version=2,
        presets=tuple(PRESETS),
        spreads=True,
        extras=("vlm",),
        needs=("dataset.text", "dataset.images"),
        uses=frozenset(
            {"evaluation.label", "evaluation.prompts", "evaluation.sets", "lora", "model.checkpoint", "train.crop"}
        ),
        reads_evaluation=frozenset({"images"}),
        fewest_rows=None,  # the pairs of a batch are contrasted with each other
        suits=frozenset({"text", "images"}),
        scores="model_similarity",
        demo="engine.demo.images",
    )
    training = Training(build_model, train, evaluate, save_model, shell=shell)

    def lacks(self, study: Study) -> str | None:
        """Something to be judged by."""
        if study.evaluation.path is None and not study.evaluation.sets:
            return "task clip needs evaluation.path, rows that are never trained on, or evaluation.sets"
        if study.lora.rank and study.model.checkpoint is None:
            return "lora needs model.checkpoint: the weights of a preset are random, and adapters alone teach it little"
        return None

    def kept(self, study: Study, folder: Path) -> Kept | None:
        """See Task."""
        source = source_of(study, folder)
        if source is None:
            return of_preset("clip", study)
        return of_shapes(shapes_in(source.folder), study, targets=study.lora.targets or LAYERS)

    def medium(self, study: Study, folder: Path) -> int:
        """See Task."""
        return math.prod(_trained(study, _processor(study, source_of(study, folder))).shape)

    def shares(self, study: Study, folder: Path) -> list[Any]:
        """How images become pixels, where that isn't CLIP's way."""
        source = source_of(study, folder)
        return source.processor.differs if source else []

    def judged_by(self, study: Study, folder: Path) -> list[Judged]:
        """The evaluation sets."""
        return judged_sets(study, folder)

    def metrics(self, study: Study, prepared: Path) -> list[Metric]:
        """Accuracy and likelihood with a label field, recalls with captions that tell rows apart."""
        meta = read_meta(prepared)
        found = []
        if meta["classes"]:
            found += [Metric("accuracy", True, 0, 1), Metric("likelihood", True, 0, 1)]
        if meta["retrieval"]:
            main = not meta["classes"]
            found += [
                Metric(f"{way}_r{k}", True, 0, 1, main) for way in ("image_to_text", "text_to_image") for k in RECALLS
            ]
        return [*found, *metrics_of_sets(_sets(prepared))]

    def inputs(self, study: Study, folder: Path, prepared: Path) -> list[Accounting]:
        """The checkpoint's tensors and tokenizer, and the evaluation sets."""
        source = source_of(study, folder)
        own = [*accounted(folder, [source.weights(folder)]), *source.accounting()] if source else []
        places = [prepared.parent / told["folder"] for told in _sets(prepared).values()]
        return [*own, *(accounting_from_json(read_meta(place)["accounting"]) for place in places)]

    def prepare(
        self, study: Study, folder: Path, train: Rows, evaluation: Rows | None, workers: int, progress: Progress | None
    ) -> Path:
        """Decode images and encode captions of both datasets, once per study."""
        data, held = train.data, evaluation.data if evaluation else None
        need_packages(study, {"peft": bool(study.lora.rank)}, "vlm")
        source, preset = source_of(study, folder), PRESETS[study.model.preset]
        processor, length = _processor(study, source), source.length if source else preset.length
        if source:
            accounted(folder, [source.weights(folder)])
            source.accounting()
        vocabulary = 0 if source else preset.vocabulary
        place = str(source.folder if source else "")
        key = content_id(
            [data.fingerprint, held.fingerprint if held else None, processor.side, length, vocabulary, place,
             study.evaluation.label, study.evaluation.prompts, data.key, held.key if held else None,
             *key_of(train, evaluation), *processor.differs, *key_of_sets(study, folder),
             *([study.train.crop] if study.train.crop else [])]
        )  # fmt: skip

        def make(target: Path) -> dict[str, Any]:
            always = ["tokenizer.json", *files_of("eval-images")]
            train.share(target, always, ["train-tokens.npy"], files_of("train-images"))
            for name, rows, part in in_turn(train, evaluation, progress):
                medium = _trained(study, processor) if name == "train" else processor.medium
                cache_images(rows, medium, target, f"{name}-images", workers, part)
            if source is None:
                train_tokenizer(train, vocabulary, target / "tokenizer.json")
            encode = source.encoder() if source else load_encoder(target, length)
            cache_tokens(train, encode, length, target / "train-tokens.npy")
            meta = _prepare_evaluation(study, evaluation, encode, target)
            if study.evaluation.sets:
                meta["sets"] = prepare_sets(study, folder, processor, encode, target, workers)
            normal = {"normal": [processor.mean, processor.std]} if processor.differs else {}
            return {**meta, **normal, "length": length, "side": processor.side}

        return make_caches(folder, f"clip-{key}", make)

    def score(self, study: Study, prepared: Path, checkpoint: str) -> NDArray[np.float64]:
        """Cosine of image and caption, -1 … 1, of every row."""
        import torch

        model = build_model(study, prepared, 0, checkpoint).eval()
        device, normal = next(model.parameters()).device, normal_of(prepared)
        crop = crop_in(study, prepared)
        images, tokens = open_media(prepared, "train-images"), np.load(prepared / "train-tokens.npy", mmap_mode="r")
        found = []
        with torch.inference_mode():
            for start in range(0, len(images), 256):
                at = slice(start, start + 256)
                ids = torch.from_numpy(tokens[at].astype(np.int64)).to(device)
                pictures: Any = np.array(images[at])
                if crop:
                    pictures = crop.cut(torch.from_numpy(pictures), None, device)
                with autocast(device):
                    seen = image_features(model, to_pixels(pictures, device, normal))
                    said = text_features(model, ids)
                found.append((seen * said).sum(-1).double().cpu().numpy())
        return np.concatenate(found)

    def can_pack(self, study: Study) -> str | None:
        """A rule and no measurement, as packed results differ from others in rounding.

        A large model fills its device by itself; gradient caching goes through one model at a time.
        """
        micro, batch = study.train.micro_batch, study.train.batch_size
        if micro is not None and micro < batch:
            return f"train.micro_batch {micro} is below the batch size {batch}, and a pack has whole batches only"
        if study.train.optimizer != "adamw" or study.train.activation_checkpointing == "on":
            return "a pack has neither an optimizer in 8 bits nor checkpointing of activations"
        if study.model.checkpoint is not None or study.model.preset not in PACKED:
            return f"one model of {study.model.checkpoint or study.model.preset} keeps a device busy"
        return None

    def pack(self, study: Study, prepared: Path, jobs: Sequence[Job], report: Report) -> dict[str, dict[str, float]]:
        """Train the jobs as one model with a member axis, save the checkpoints, evaluate."""
        import torch

        from engine.tasks.clip.packed import Pack, train_pack

        rows = [np.load(job.rows) for job in jobs]
        pack = Pack((build_model(study, prepared, job.seed, job.init) for job in jobs), len(jobs))
        left = train_pack(pack, study, prepared, rows, jobs, report)
        if not left:
            return {}
        parts = {}
        for job in left:
            if job.part not in parts:
                with torch.inference_mode(), judged_on(study, job.part, job.items):
                    parts[job.part] = evaluate_pack(pack, study, prepared)
        for place, job in enumerate(left):
            if job.output:
                save_model(pack.member(place), study, prepared, Path(job.output))
        return {job.trial: parts[job.part][place] for place, job in enumerate(left)}

    def calibrate_pack(self, study: Study, prepared: Path, candidates: Sequence[int] | None = None) -> dict[int, float]:
        """Time a few steps of packs of rising size, until a larger one is no faster or memory runs out."""
        from engine.tasks.clip.packed import calibrate

        return calibrate(study, prepared, candidates)


TASK = ClipTask()
