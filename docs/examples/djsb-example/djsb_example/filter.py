"""The filter of OP `vowels_filter`, as Data-Juicer has them."""

from data_juicer.ops.base_op import OPERATORS, Filter
from data_juicer.utils.constant import Fields


@OPERATORS.register_module("vowels_filter")
class VowelsFilter(Filter):
    """Keeps texts with a share of vowels within bounds."""

    _batched_op = True

    def __init__(self, letters: str = "aeiou", min_ratio: float = 0.0, max_ratio: float = 1.0, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.letters, self.min_ratio, self.max_ratio = letters, min_ratio, max_ratio

    def compute_stats_batched(self, samples, *args, **kwargs):
        for text, stats in zip(samples[self.text_key], samples[Fields.stats], strict=True):
            if "vowel_ratio" not in stats:
                lower = text.lower()
                stats["vowel_ratio"] = sum(lower.count(v) for v in self.letters) / max(1, len(text))
        return samples

    def process_batched(self, samples):
        return [self.get_keep_boolean(s["vowel_ratio"], self.min_ratio, self.max_ratio) for s in samples[Fields.stats]]
