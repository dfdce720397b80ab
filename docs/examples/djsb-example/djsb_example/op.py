"""What djsb is told of OP `vowels_filter`. Its filter is imported where statistics are computed, and only there."""

from djsb import Bounds, Op

VOWELS = Op(
    "vowels_filter", "text", {"vowel_ratio": Bounds("min_ratio", "max_ratio")}, rate=None,
    params={"letters": str}, by="djsb_example.filter:VowelsFilter", version=1,
)  # fmt: skip
