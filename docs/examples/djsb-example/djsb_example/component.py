"""Component `letter_counts` of EvaluateDataHook: letters of each row on average, and the share of vowels."""

import json

from djsb import Component, ComponentError, Done, Group, Takes


class Keys(Group):
    """What `extra_configs` takes."""

    dataset_path: str
    text_key: str = "text"


class Letters(Component[Takes[Keys]]):
    """Gives the mean length and the share of vowels."""

    name = "letter_counts"
    hooks = frozenset({"EvaluateDataHook"})
    settings = Takes[Keys]
    gives = ("mean_length", "vowels")
    read_keys = ("extra_configs.dataset_path",)

    def run(self, settings, context):
        keys = settings.extra_configs
        lines = context.file(keys.dataset_path).read_text(encoding="utf-8").splitlines()
        texts = [str(json.loads(line).get(keys.text_key, "")) for line in lines if line.strip()]
        if not texts:
            raise ComponentError(f"{context.job}: {keys.dataset_path} has no rows; check the path")
        letters = "".join(texts).lower()
        context.say(f"{len(texts)} rows")
        vowels = sum(letters.count(v) for v in "aeiou") / max(1, len(letters))
        return Done([len(letters) / len(texts), vowels])


LETTERS = Letters()
