"""Perceptual hashes of images, in place of the package `imagededup` that Data-Juicer's image deduplicator imports.

That package needs torchvision and scikit-learn for a network that no hash uses. The hashes are its own, to the bit: 64
bits as 16 hexadecimal digits, from the picture at a few pixels in grey.
"""

from __future__ import annotations

import sys
import types
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]


class _Hash(ABC):
    """side: (width, height) in pixels at which the bits are made."""

    side = (8, 8)

    def encode_image(self, image_array: NDArray[Any]) -> str:
        """16 hexadecimal digits. image_array: (height, width, 3) bytes."""
        from PIL import Image

        small = Image.fromarray(image_array.astype(np.uint8)).resize(self.side, Image.Resampling.LANCZOS)
        return np.packbits(self.bits(np.asarray(small.convert("L")))).tobytes().hex()

    @abstractmethod
    def bits(self, grey: Grey) -> NDArray[np.bool_]:
        """(8, 8), from the (height, width) picture."""


class AHash(_Hash):
    """Brighter than the mean or not."""

    def bits(self, grey: Grey) -> NDArray[np.bool_]:
        return np.asarray(grey >= grey.mean())


class DHash(_Hash):
    """Brighter than the pixel to the left or not."""

    side = (9, 8)

    def bits(self, grey: Grey) -> NDArray[np.bool_]:
        return np.asarray(grey[:, 1:] > grey[:, :-1])


class PHash(_Hash):
    """The 64 lowest frequencies of a cosine transform, above their median or not."""

    side = (32, 32)

    def bits(self, grey: Grey) -> NDArray[np.bool_]:
        from scipy.fftpack import dct

        low = dct(dct(grey, axis=0), axis=1)[:8, :8]
        return np.asarray(low >= np.median(low.ravel()[1:]))


def stand_in() -> None:
    """Let Data-Juicer import these hashes as `imagededup.methods`."""
    methods = types.ModuleType("imagededup.methods")
    methods.__dict__.update(PHash=PHash, DHash=DHash, AHash=AHash, WHash=None)
    package = types.ModuleType("imagededup")
    package.__dict__.update(methods=methods, __path__=[])
    sys.modules.update({"imagededup": package, "imagededup.methods": methods})
