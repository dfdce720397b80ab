"""What the catalogue says of one filter: its statistics, bounds, parameters, modality, cost and needs."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Number = Literal["float", "int", "bytes", "ratio"]
Modality = Literal["text", "image", "video", "audio", "text+image", "text+video", "row"]
# a parameter's kind beyond the plain types. field, fields: names of the rows' fields. template: text with {field} in
# it. words: a list of texts. rows: a list of rows. condition: an expression over the fields.
Kind = type | Literal["field", "fields", "template", "words", "rows", "condition"]
IMAGE_TOKEN, VIDEO_TOKEN = "<__dj__image>", "<__dj__video>"
MODELS_HOME = "DATA_JUICER_EXTERNAL_MODELS_HOME"
NATURAL_MAX = {
    "float": math.inf,
    "int": sys.maxsize,
    "bytes": "1000000TB",
    "ratio": f"{10**15}/1",
}


@dataclass(frozen=True)
class Bounds:
    """How a filter's parameters bound one of its statistics.

    low, high: parameter names, None where the OP has no such bound. number: how a bound is
    written (`bytes` is a string of digits, `ratio` a string a/b). list_valued: one value per image or video.
    keeps: which rows the filter keeps. range: those in an interval, closed or open as its flags say; at_least, below:
    those on one side of its only bound; true: those where the statistic is 1; nothing: its bounds say less than a slice
    does. check: which bounds Data-Juicer's own check of types lets pass, all, whole numbers only, or none, whatever the
    values are.
    """

    low: str | None
    high: str | None
    number: Number = "float"
    list_valued: bool = False
    keeps: Literal["range", "at_least", "below", "true", "nothing"] = "range"
    check: Literal["all", "whole", "none"] = "all"


@dataclass(frozen=True)
class Op:
    """One Data-Juicer filter.

    statistics: stats key → how it is bounded. named_by: parameter whose value is the key, where the data name it.
    rate: rows per second measured on one core, with tiny weights where it needs some; None: never measured here.
    model: parameter that takes a local folder, or None. hub: the model that Data-Juicer takes where none is named.
    files: what must lie in MODELS_HOME, {lang} being that parameter. packages: importable names that it needs beyond
    the base installation. params: extra parameters that a study may set, with their kind; `required`: those that it
    must. fixed: parameters that no study sets. asks: scores come from a language model's server. barred: why it gives
    no statistic here. rare: for texts or images that few data sets have; `djsb init` leaves it to people.
    by: of a plug-in, `module:name` of Data-Juicer's filter that computes it. version: of a plug-in, raised when the
    same parameters give other values.
    """

    name: str
    modality: Modality
    statistics: Mapping[str, Bounds]
    rate: float | None
    model: str | None = None
    hub: str | None = None
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    params: Mapping[str, Kind] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    named_by: str | None = None
    asks: bool = False
    barred: str | None = None
    rare: bool = False
    by: str | None = None
    version: int = 1

    @property
    def modalities(self) -> frozenset[str]:
        """The fields that it reads: text, image, video, audio; none where its parameters name them."""
        return frozenset() if self.modality == "row" else frozenset(self.modality.split("+"))

    @property
    def opens_media(self) -> bool:
        """True for an OP that opens images or videos."""
        return not self.modalities <= {"text"}
