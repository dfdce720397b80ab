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
