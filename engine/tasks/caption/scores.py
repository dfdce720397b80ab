"""The scores of generated captions: BLEU-1 … 4, ROUGE-L and CIDEr by pycocoevalcap, METEOR where Java is wanted.

Published numbers tokenise by Stanford's PTB tokenizer, a Java program. Without Java the words are found here, and the
metrics say so in their names (`cider_non_ptb`): they rank models alike, but are not to be held against tables.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from engine.base.errors import StudyError

SCORES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")
SUFFIX = "_non_ptb"
CIDER_MOST = 10.0
_WORDS = re.compile(r"\w+(?:['’]\w+)*")
JAVA_SECONDS = 600


def caption_names(java: bool) -> tuple[str, ...]:
    """The names of what `caption_scores` returns."""
    return (*SCORES, "meteor") if java else tuple(name + SUFFIX for name in SCORES)


def java_problem() -> str | None:
    """Why Java's part cannot run here, or None."""
    if shutil.which("java") is None:
        return "vlm.java needs the program java; install a Java runtime, or leave vlm.java out"
    return None


def words(text: str) -> str:
    """The text as lower-case words with a space between, no punctuation."""
    return " ".join(_WORDS.findall(text.lower()))


def ptb_words(texts: Sequence[str]) -> list[str]:
    """The texts as pycocoevalcap's PTBTokenizer leaves them. Raises: StudyError when Java fails."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    folder = Path(ptbtokenizer.__file__).parent
    command = ["java", "-cp", str(folder / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = "\n".join(" ".join(text.split()) for text in texts) + "\n"
    try:
        done = subprocess.run(
            command, input=lines, capture_output=True, text=True, encoding="utf-8", timeout=JAVA_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StudyError(f"vlm.java: the PTB tokenizer failed ({error}); check java, or leave vlm.java out") from error
    found = done.stdout.split("\n")[: len(texts)]
    if len(found) != len(texts):
        raise StudyError(f"vlm.java: the PTB tokenizer gave {len(found)} lines for {len(texts)} texts; leave it out")
    return [" ".join(word for word in line.split() if word not in ptbtokenizer.PUNCTUATIONS) for line in found]


def caption_scores(said: Sequence[str], references: Sequence[Sequence[str]], java: bool = False) -> dict[str, float]:
    """The corpus scores of one caption per image against its references; CIDEr 0 … 10, the others 0 … 1.

    Raises: StudyError when Java is wanted and fails.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    flat = [*said, *(text for texts in references for text in texts)]
    clean = iter(ptb_words(flat) if java else [words(text) for text in flat])
    result = {at: [next(clean)] for at in range(len(said))}
    truth = {at: [next(clean) for _ in texts] for at, texts in enumerate(references)}
    bleu, _ = Bleu(4).compute_score(truth, result, verbose=0)
    values = [*bleu, Rouge().compute_score(truth, result)[0], Cider().compute_score(truth, result)[0]]
    if java:
        values.append(_meteor(truth, result))
    return dict(zip(caption_names(java), map(float, values), strict=True))


def _meteor(truth: dict[int, list[str]], result: dict[int, list[str]]) -> float:
    """METEOR 1.5 by its Java program. Raises: StudyError when it fails."""
    from pycocoevalcap.meteor.meteor import Meteor

    try:
        return float(Meteor().compute_score(truth, result)[0])
    except (OSError, ValueError) as error:
        raise StudyError(
            f"vlm.java: METEOR failed ({error}); check java and its memory, or leave vlm.java out"
        ) from error
