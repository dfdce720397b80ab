"""Writes the study of this folder with a given `djsb`: `python make.py DJSB` beside an empty `study/`.

Rows of text, a trainer that only counts words, two cycles, and one proposal of every kind that such a study can run.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

STUDY = """\
# A study as it was written at revision 57fb551.
name: old
task: command
budget: 30min
dataset: {path: rows.jsonl, text: text, id: id}
command:
  run: python3 trainer.py {pool} {init} {seed} {out} {samples}
  metrics: [{name: score, low: 0, high: 1}]
train: {epochs: 1, batch_size: 16, keep_checkpoints: 1}
search: {strategy: race, seeds: 2, top: 3, rungs: [[0.5, 1], [1.0, 1], [1.0, 2]]}
combine: {top: 2, clusters: 0, max: 3}
scale: {rates: [2], recipes: 1, seeds: 2}
confirm: {candidates: 2, seeds: 3}
cycles: {max: 2}
ops:
  text_length_filter: {}
  words_num_filter: {}
  special_characters_filter: {}
"""
TRAINER = '''\
"""A trainer: its score falls with the words of its texts, rises with training, and differs by seed."""
import json, random, sys
from pathlib import Path

pool, init, seed, out, samples = sys.argv[1:6]
rows = [json.loads(line) for line in open(pool)]
words = sum(len(row["text"].split()) for row in rows) / len(rows)
score = 0.7 - 0.02 * words + 0.01 * bool(init) + int(samples) / 5000 + random.Random(seed + str(rows[0])).uniform(0, 0.01)
out = Path(out)
with (out / "metrics.jsonl").open("w") as told:
    for step in (1, 2):
        told.write(json.dumps({"step": step, "total": 2, "loss": words / step}) + chr(10))
    told.write(json.dumps({"score": score}) + chr(10))
(out / "model.txt").write_text(f"{words} {init}")
'''
WORDS = ("a", "photo", "of", "the", "small", "bright", "old", "corner", "<b>", "shiny!", "dark", "#nice")


def rows(n: int, seed: int) -> str:
    """n rows of 2 to 12 words, as JSON lines."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(2, 12))) for _ in range(n)]
    return "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts))


def main(djsb: str) -> None:
    """Make the study, run it, propose and decide, run what was approved."""
    study = Path("study")
    study.mkdir()
    (study / "study.yaml").write_text(STUDY)
    (study / "trainer.py").write_text(TRAINER)
    (study / "rows.jsonl").write_text(rows(240, 0))
    (study / "other.jsonl").write_text(rows(180, 1))

    def run(*arguments: str, read: str | None = None) -> str:
        done = subprocess.run([djsb, *arguments], input=read, stdout=subprocess.PIPE, text=True, check=False)
        assert done.returncode in (0, 3), arguments
        return done.stdout

    def propose(why: str, **experiment: object) -> str:
        Path("asked.json").write_text(json.dumps({"experiment": experiment, "reason": why, "expected": 2}))
        answer = json.loads(run("propose", "study", "--by", "person", "--from", "asked.json", "--json"))
        Path("asked.json").unlink()
        return str(answer["proposals"][0]["id"])

    run("auto", "study", "--workers", "1")
    pool = next(e for e in json.loads(run("rank", "study", "--json")) if e["kind"] == "single")["pool"]
    approved = [
        propose("does it hold for longer training?", kind="scale", pool=pool, compute=0.5),
        propose("and for still longer?", kind="scale", pool=pool, compute=2),
        propose("does it hold on other rows?", kind="scale", pool=pool, dataset="other.jsonl"),
        propose("marks are noise", kind="mapper", op="remove_specific_chars_mapper",
                params={"chars_to_remove": "<>/#!"}, pool=pool),
        propose("shorter still", kind="bucket", slice={"statistic": "text_len", "high": 40}),
    ]  # fmt: skip
    for proposal in approved:
        run("review", proposal, "--dir", "study", "--approve", "--why", "a cheap question")
    run("auto", "study", "--workers", "1")
    held = propose("one more seed", kind="seeds", pool=pool, seeds=1)
    run("review", held, "--dir", "study", "--hold", "--why", "not now")
    rejected = propose("repeat it", kind="repeat", pool=pool, rate=3)
    run("review", rejected, "--dir", "study", "--reject", "--why", "too dear")
    propose("on a larger amount", kind="scale", pool=pool, compute=4)
    propose("no such pool", kind="seeds", pool="ffffffffffff", seeds=2)


if __name__ == "__main__":
    main(sys.argv[1])
