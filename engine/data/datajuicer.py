"""The only import of Data-Juicer: without its log, and without installing or downloading anything.

Every process that builds OPs comes through `load_op` or `prepare`, spawned children included.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, NoReturn

from engine.base import installed, machine, plugins
from engine.base.errors import DjsbError, MachineError, OpError
from engine.base.gpus import gpus
from engine.base.parallel import workers_elsewhere
from engine.data import images, videos
from engine.data.catalogue import as_built, find_op
from engine.data.ops.table import OPS

OFFLINE = {
    "UV_OFFLINE": "1",
    "PIP_NO_INDEX": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": videos.OPENCV,
    "OPENCV_VIDEOIO_PRIORITY_LIST": "FFMPEG",  # no series of images by a pattern in the name
}


def version() -> str:
    """The version of Data-Juicer; part of every statistic's cache key.

    Where it is not installed a study can only be looked at: its caches are of the version that djsb is bound to.
    """
    return installed.version_of("py-data-juicer") or installed.pin("py-data-juicer")


def prepare() -> None:
    """Import Data-Juicer so that it cannot install packages, download models or fill the log."""
    os.environ.update(OFFLINE)
    # its check for spacy-pkuseg imports a name that can never exist, then installs; give it the name
    sys.modules.setdefault("spacy-pkuseg", types.ModuleType("spacy-pkuseg"))
    from data_juicer.utils.lazy_loader import LazyLoader
    from loguru import logger

    def refuse(_self: Any, package: str, *_: Any) -> None:
        raise OpError(f"Data-Juicer needs the package {package}; install it yourself: pip install {package}")

    logger.remove()
    LazyLoader._install_package = refuse
    _guard_media()


def _guard_media() -> None:
    """Let the OPs' libraries open what we do, and nothing else: a file may change after it was looked at."""
    images.guard()
    if importlib.util.find_spec("av"):
        videos.guard()


def local_only() -> None:
    """Turn a download by an OP's libraries into an error."""
    from data_juicer.utils import asset_utils, model_utils

    def refuse(what: Any, *_: Any, **__: Any) -> NoReturn:
        raise OpError(f"it would download {what}; docs/guides/ops.md says where the file belongs")

    model_utils.wget = types.SimpleNamespace(download=refuse)
    asset_utils.requests = types.SimpleNamespace(get=refuse)


def prepare_grounding() -> None:
    """For phrase grounding: NLTK with the data that are there and without pickles, and what transformers 5 moved."""
    import nltk
    import transformers
    from data_juicer.utils import model_utils, nltk_utils

    nltk.download = lambda *_, **__: False  # it asks for its data at every start, even if they are there
    for module in (model_utils, nltk_utils):
        module.patch_nltk_pickle_security = lambda: True  # pickles can hold code; Data-Juicer would let NLTK read them
    for name in ("OwlViTProcessor", "Owlv2Processor"):
        processor = getattr(transformers, name)
        if not hasattr(processor, "post_process_object_detection"):
            processor.post_process_object_detection = lambda self, *args, **options: (
                self.image_processor.post_process_object_detection(*args, **options)
            )


def decoded(content: bytes) -> Any:
    """An image as Data-Juicer decodes the file that holds these bytes."""
    import datasets

    return datasets.Image().decode_example({"path": None, "bytes": content}).convert("RGB")


def on_gpus(names: Collection[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """(those of the OPs that a GPU runs, the GPUs that can be used); none of either on a machine without.

    The GPUs are those of the workers that the work goes to.
    """
    others = workers_elsewhere()
    found = others.gpus() if others else gpus()
    if not found:
        return frozenset(), ()
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return frozenset(), ()  # a PyTorch for CPUs is what the user has installed
    prepare()
    taken = frozenset(name for name in names if operator(name)._accelerator == "cuda")
    return taken, tuple(found) if taken else ()


def check_gpu(name: str) -> None:
    """That a worker's GPU works, before a row is read. Raises: MachineError."""
    import torch

    try:
        torch.zeros(1, device="cuda").sum().item()
    except Exception as error:  # a border: torch raises RuntimeError, AssertionError and errors of the driver
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise MachineError(
            f"GPU {name} cannot be used ({text}); check its driver, or set CUDA_VISIBLE_DEVICES"
        ) from error


def prepare_pairs() -> None:
    """For the similarity of pairs: CLIP's features as tensors, as before transformers 5."""
    from transformers import CLIPModel

    def tensors(features: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(features)
        def of_pooler(*args: Any, **options: Any) -> Any:
            found = features(*args, **options)
            tensor = found.pooler_output.detach()
            tensor.pooler_output = found.pooler_output  # what CLIP itself goes on with
            return tensor

        return of_pooler

    if not getattr(CLIPModel, "_gives_tensors", False):
        CLIPModel._gives_tensors = True  # type: ignore[attr-defined]
        for name in ("get_text_features", "get_image_features"):
            setattr(CLIPModel, name, tensors(getattr(CLIPModel, name)))


def prepare_lines() -> None:
    """For subplots: lines in OpenCV 4's form. Data-Juicer fails on OpenCV 5's, and says that there are none."""
    import cv2

    found_by = cv2.HoughLinesP
    if getattr(found_by, "__name__", "") == "in_rows":
        return

    def in_rows(*args: Any, **options: Any) -> Any:
        lines = found_by(*args, **options)
        return lines if lines is None else lines.reshape(-1, 1, 4)

    cv2.HoughLinesP = in_rows


PREPARE: dict[str, Callable[[], None]] = {
    "phrase_grounding_recall_filter": prepare_grounding, "text_pair_similarity_filter": prepare_pairs,
    "image_pair_similarity_filter": prepare_pairs, "image_subplot_filter": prepare_lines,
}  # fmt: skip


class _Later(types.ModuleType):
    """Data-Juicer's executors, imported when one is asked for: an OP needs two of their modules, and none of Ray."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(name)
        object.__setattr__(self, "__class__", types.ModuleType)  # from here on it is as any module
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _core_later() -> None:
    """Spare a process that builds OPs a third of Data-Juicer's imports."""
    name = "data_juicer.core"
    if name in sys.modules or (spec := importlib.util.find_spec(name)) is None:
        return
    module = _Later(name)
    module.__spec__, module.__file__, module.__path__ = spec, spec.origin, spec.submodule_search_locations or []
    sys.modules[name] = module


def operator(name: str) -> Any:
    """The class of an OP; a plug-in's is imported and registered at Data-Juicer.

    Raises: OpError for one that would take the place of Data-Juicer's, PluginError.
    """
    from data_juicer.ops.base_op import OPERATORS, Filter

    op = None if name in OPS else find_op(name)
    own = OPERATORS.modules.get(name)
    if op is None or (own and f"{own.__module__}:{own.__name__}" == op.by):
        return OPERATORS.modules[name]
    given = plugins.plugin(plugins.OPS, name)
    assert given and op.by
    if own:
        raise OpError(f"{name} is an OP of Data-Juicer, and the plug-in of {given.package} may not take its place")
    made = plugins.loaded(replace(given, target=op.by), lambda found: _no_filter(found, Filter))
    if name not in OPERATORS.modules:  # where it does not register itself
        OPERATORS.register_module(name, made)
    return made


def _no_filter(given: Any, base: type) -> str | None:
    return None if isinstance(given, type) and issubclass(given, base) else "is no filter of Data-Juicer"


def load_op(name: str, params: dict[str, Any]) -> Any:
    """One Data-Juicer OP object, a filter or a mapper. `params` must have been checked by the catalogue.

    Raises: OpError when it cannot be built, with Data-Juicer's reason.
    """
    prepare()
    from data_juicer.ops import load_ops

    _core_later()
    local_only()
    PREPARE.get(name, lambda: None)()
    operator(name)
    built = as_built(name, params) if find_op(name) else params
    with _no_fault_of_a_row(f"{name} cannot be built"):
        op = load_ops([{name: {**built, "skip_op_error": False}}])[0]
    for attribute, model in vars(op).items():
        if isinstance(model, partial):  # Data-Juicer loads a model when the first row comes
            setattr(op, attribute, _Model(name, model))
    return op


@dataclass(frozen=True, eq=False)
class _Model:
    """How an OP's model is loaded."""

    op: str = field(repr=False)
    load: Callable[..., Any]

    def __call__(self, *args: Any, **options: Any) -> Any:
        with _no_fault_of_a_row(f"{self.op} cannot load its model"):
            return self.load(*args, **options)


@contextmanager
def _no_fault_of_a_row(what: str) -> Iterator[None]:
    """Raises: MachineError or OpError in place of whatever goes wrong."""
    try:
        yield
    except DjsbError:
        raise
    except Exception as error:  # a border: OPs may raise any exception
        machine.refuse(error, what)
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OpError(f"{what}: {reason[0]}; check its parameters and models (djsb check)") from error
