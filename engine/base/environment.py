"""Which variables other processes get: those on a list, as far as they hold no key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from engine.base.secrets import is_secret

_USUAL = """
    PATH HOME USER LOGNAME SHELL PWD HOSTNAME TERM LANG LANGUAGE TZ TMPDIR TMP TEMP COLUMNS LINES NO_COLOR DISPLAY
    VIRTUAL_ENV LIBRARY_PATH MODULEPATH LOADEDMODULES MASTER_ADDR MASTER_PORT RANK WORLD_SIZE NODE_RANK
    NLTK_DATA REQUESTS_CA_BUNDLE CURL_CA_BUNDLE HTTP_PROXY HTTPS_PROXY ALL_PROXY FTP_PROXY NO_PROXY
"""
# the beginnings of names: the machine, Python, devices and their libraries; then training, its caches, clusters, djsb
_BEGINNINGS = """
    LC_ LD_ XDG_ PYTHON CONDA_ MAMBA_ UV_ SSL_CERT_ CUDA CUBLAS_ CUDNN_ NVIDIA_ NCCL_ GLOO_ UCX_ FI_ ROCR_ HIP_ HSA_
    AMD_ ROCM_ XPU_ ONEAPI_ OMP_ MKL_ KMP_ GOMP_ OPENBLAS_ BLIS_ NUMEXPR_ VECLIB_ MALLOC_ OPENCV_ FFMPEG_
    TORCH PYTORCH_ TRITON_ XLA_ TF_ JAX_ TRANSFORMERS_ TOKENIZERS_ DATASETS_ DIFFUSERS_ HF_ HUGGINGFACE_ ACCELERATE_
    DEEPSPEED_ SAFETENSORS_ EASYOCR_ DATA_JUICER_ DJ_ DJSB_ LOCAL_ SLURM_ PBS_ SGE_ RAY_ NODE_
"""
_NAMES, _FAMILIES = frozenset(_USUAL.split()), tuple(_BEGINNINGS.split())


def passed(environment: Mapping[str, str] | None = None, more: Iterable[str] = ()) -> dict[str, str]:
    """What of an environment is passed on; None: of this process. more: names that are, whatever they are and hold."""
    also = frozenset(more)
    return {
        name: value for name, value in (os.environ if environment is None else environment).items()
        if name in also
        or ((name.upper() in _NAMES or name.upper().startswith(_FAMILIES)) and not is_secret(name, value))
    }  # fmt: skip
