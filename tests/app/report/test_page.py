"""The report: what it holds at each point of a study, that nothing in it is markup, and that it repeats itself.

The studies are written straight into a database; their numbers are made up.
"""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import asdict
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.report.data import scaled
from app.report.figures import interval, percent, picture, spread
from app.report.page import FIGURES, draw, gather, write_report
from engine.base.errors import StoreError
from engine.base.ids import content_id
from engine.base.paths import STATE_FOLDER
from engine.evidence.analysis import correlate
from engine.evidence.ranking import rank
from engine.evidence.recipe import repetitions
from engine.journal.results import Result
from engine.journal.store import Row, Store
from engine.records.pool import Layer, Pool, Slice
from engine.records.proposal import Arm, Proposal
from engine.records.trial import FRESH
from engine.settings.study import Study
from engine.study.view import view_study
from tests.conftest import Tiny

OPS = {
    "text_length_filter": "text_len", "words_num_filter": "num_words", "alphanumeric_filter": "alnum_ratio",
    "special_characters_filter": "special_char_ratio",
}  # fmt: skip
CONTEXT = "0123456789ab"
EVIL = '<script>alert("x")</script>'
METRICS = ("accuracy", "recall")
SIZE = 3000
SECTIONS = (
    "leaderboard", "buckets", "correlations", "combinations", "repetition", "confirmation", "recipe", "budget",
    "curves", "decisions", "left-out", "methods",
)  # fmt: skip


def at(second: float) -> str:
    """A time in the life of the study."""
    return f"2026-01-02T{int(second // 3600):02}:{int(second // 60 % 60):02}:{second % 60:06.3f}+00:00"


DRAWN = set(FIGURES) - {"mixtures"}  # the study has one source


class Fake:
    """A study's database with invented results."""

    def __init__(self, folder: Path, name: str = "sample", task: str | None = "clip", seeds: int = 3, ops: int = 4):
        self.folder, self.clock = folder, 0.0
        self.rng = np.random.default_rng(0)
        self.ops = list(OPS)[:ops]
        self.statistics = list(OPS.values())[:ops]
        self.study = Study.model_validate(
            {
                "name": name, "task": task, "dataset": {"path": "train.jsonl", "images": "images"},
                "evaluation": {"path": "test.jsonl", "label": "label"}, "search": {"seeds": seeds},
                "ops": {op: {} for op in [*self.ops, "text_action_filter"]},
            }
        )  # fmt: skip
        self.store = Store(folder / STATE_FOLDER / "study.db")
        self.store.put("setups", {
            "setup": CONTEXT, "name": name, "dataset": "data", "evaluation": "test", "version": "0.1.0", "at": at(0),
            "config": self.study.model_dump_json(),
        })  # fmt: skip
        scales = [{"name": m, "higher_is_better": True, "low": 0, "high": 1, "main": True} for m in METRICS]
        Result[Any]("metric_scales", Any).put(self.store, CONTEXT, scales if task else [])

    def pool(self, slices: Sequence[Slice], label: str, kind: str, size: int = SIZE, repetition: int = 1) -> Pool:
        """A pool in the store."""
        layers = (Layer(tuple(slices)), Layer()) if kind == "layers" else (Layer(tuple(slices)),)
        pool = Pool(layers, size, repetition)
        one = slices[0] if len(slices) == 1 and kind == "single" else None
        self.store.put("pools", {
            "id": pool.id, "content": json.dumps(asdict(pool)), "label": label, "kind": kind, "op": one and one.op,
            "statistic": one and one.statistic, "bucket": label.rsplit(" ", 1)[-1] if one else None, "at": at(0),
        })  # fmt: skip
        return pool

    def trials(
        self, pool: Pool, stage: str, seeds: Sequence[int], gain: float, samples: int, curve: bool = False
    ) -> None:
        """Finished trials whose scores lie `gain` percent above the control's."""
        for seed in seeds:
            trial, self.clock = f"{pool.id}{seed}{samples}", self.clock + 20
            noise = np.random.default_rng(seed).normal(0, 0.2)
            self.store.put("trials", {
                "id": trial, "setup": CONTEXT, "pool": pool.id, "seed": seed, "init": None,
                "samples": samples, "horizon": samples,
                "stage": stage, "proposal": content_id(stage, 12), "state": "COMPLETE", "attempts": 1, "estimate": 18.0,
                "seconds": 20.0, "device": "cpu0", "error": None, "started": at(self.clock - 20),
                "finished": at(self.clock),
            })  # fmt: skip
            for i, metric in enumerate(METRICS):
                value = 0.4 * (1 + (gain * (1 + 0.2 * i) + noise + self.rng.normal(0, 0.5)) / 100)
                self.store.put("metrics", {"trial": trial, "name": metric, "value": value})
            self.store.put("costs", {
                "id": f"{trial}:1", "kind": "trial", "trial": trial, "stage": stage, "device": "cpu0",
                "samples": samples, "seconds": 20.0, "at": at(self.clock),
            })  # fmt: skip
            if curve:
                points = [
                    {"trial": trial, "name": "loss", "step": s, "value": 4 - s / 50 - gain / 100 + noise / 9}
                    for s in range(1, 51)
                ]
                self.store.put("curve_points", points)

    def proposal(
        self,
        stage: str,
        pools: Sequence[Pool],
        why: str = "it passed the gate",
        samples: int = 9,
        seeds: Sequence[int] = (0, 1),
    ) -> None:
        """A proposal and the decision on it."""
        asked = Proposal(
            origin="paper", kind="probe", stage=stage, seeds=tuple(seeds), reason=f"what {stage} wants",
            pools=tuple(Arm(pool=asdict(p), label="a", kind="control", samples=samples) for p in pools),
        )  # fmt: skip
        content = {**asked.model_dump(mode="json"), "gate": "passes"}
        self.store.put("proposals", {
            "id": asked.id, "setup": CONTEXT, "origin": "paper", "kind": "probe", "stage": stage,
            "content": json.dumps(content), "status": "approved", "cost": 40.0, "at": at(self.clock),
        })  # fmt: skip
        who = {"proposal": asked.id, "verdict": "approve", "who": "person ada", "why": why, "at": at(self.clock)}
        self.store.put("decisions", who)

    def slice(self, i: int, bucket: str) -> Slice:
        """One bucket's slice."""
        low, high = {"low": (None, 1.0), "mid": (1.0, 2.0), "high": (2.0, None)}[bucket]
        return Slice(self.ops[i], self.statistics[i], low, high)

    def probe(self, gain: Callable[[int, str], float] | None = None) -> None:
        """Three buckets of each statistic but the last, which has one left out."""
        gain = gain or (lambda i, bucket: {"low": 8.0 - 3 * i, "mid": 0.0, "high": -6.0}[bucket])
        with self.store.transaction():
            self._probe(gain)

    def _probe(self, gain: Callable[[int, str], float]) -> None:
        seeds = range(self.study.search.seeds)
        control = self.pool((), "control", "control")
        self.trials(control, "probe", seeds, 0, 12_000, curve=True)
        for i, statistic in enumerate(self.statistics):
            for bucket in ("low", "mid", "high"):
                pool = self.pool([self.slice(i, bucket)], f"{statistic} {bucket}", "single")
                out = i == len(self.statistics) - 1 and bucket == "mid"
                self.store.put("pool_cuts", {
                    "setup": CONTEXT, "op": pool.slices[0].op, "statistic": statistic, "bucket": bucket,
                    "pool": pool.id, "kept": 4000, "entropy": 3.5,
                    "reason": "too few rows" if out else None, "verdict": "degenerate" if out else "ok",
                })  # fmt: skip
                if not out:
                    self.trials(pool, "probe", seeds, gain(i, bucket), 12_000, curve=i == 0)
        self.proposal("probe", [control])
        series = {s: self.rng.normal(size=50) for s in self.statistics}
        for name, found in (("statistics", series), ("metrics", {m: self.rng.normal(size=9) for m in METRICS})):
            together = correlate(found, 3)
            Result[Any](name, Any).put(self.store, CONTEXT, together.to_json() if together else None)
        Result[Any]("budget", Any).put(self.store, CONTEXT, 4000.0)

    def later(self, gain: float = 12.0) -> None:
        """Combinations, repetition and confirmation."""
        with self.store.transaction():
            self._later(gain)
        self._results()

    def _later(self, gain: float) -> None:
        seeds = range(self.study.search.seeds)
        control = self.pool((), "control", "control", 1000)
        self.trials(control, "combine", seeds, 0, 4000)
        for n in (1, 2, 3):
            for chosen in combinations(range(3), n):
                slices = [self.slice(i, "low") for i in chosen]
                label = " + ".join(f"{s.statistic} low" for s in slices)
                pool = self.pool(slices, label, "single" if n == 1 else "combination", 1000)
                self.trials(pool, "combine", seeds, 4.0 * n, 4000)
        best = [self.slice(i, "low") for i in range(3)]
        name = " + ".join(f"{s.statistic} low" for s in best)
        for rate in (2, 4):
            samples = 4000 * rate
            self.trials(self.pool((), "control", "control", 1000 * rate), "scale", (0, 1), 0, samples)
            self.trials(
                self.pool(best, f"{name} ×{rate}", "repetition", 1000, rate), "scale", (0, 1), 9 / rate, samples
            )
            self.trials(self.pool(best, f"{name} + lower layers", "layers", 1000 * rate), "scale", (0, 1), 3, samples)
        fresh = range(FRESH, FRESH + 5)
        self.trials(control, "confirm", fresh, 0, 4000, curve=True)
        self.trials(self.pool(best, name, "combination", 1000), "confirm", fresh, gain, 4000, curve=True)
        self.proposal("confirm", [control, control], samples=4000, seeds=fresh)

    def _results(self) -> None:
        self.store.event("memory", "out of memory; goes on with less", level="warning")
        self.store.execute("UPDATE events SET at = ?", (at(9000),))
        opened = view_study(self.folder)
        with opened.store:
            winners = [r for r in rank(opened, ("single", "combination"), fresh=True) if r.effect.verdict == "helps"]
            rows = repetitions(opened)
        more = {"samples": 4000, "repetition": 2, "kept": 2400, "rows": 12_000}
        Result[Any]("scale", Any).put(self.store, CONTEXT, rows)
        Result[Any]("recipe", Any).put(
            self.store, CONTEXT, {**winners[0].entry().to_json(), **more} if winners else None
        )


class Page(HTMLParser):
    """Elements, ids, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(k, v or "") for k, v in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def ids(self) -> list[str]:
        return [v for k, v in self.attributes if k == "id"]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def contents(folder: Path) -> Row:
    """What the page is made from."""
    opened = view_study(folder)
    with opened.store:
        return gather(opened)


def read(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study that went through all stages."""
    folder = tmp_path_factory.mktemp("full")
    fake = Fake(folder)
    fake.probe()
    fake.later()
    return write_report(folder, None)


def test_a_finished_study_has_every_section_and_figure(full: Path) -> None:
    page = read(full)
    assert full == full.parent.parent / "report" / "report.html"
    assert set(SECTIONS) <= set(page.ids)
    assert page.tags.count("svg") == len(DRAWN)
    assert {f.stem for f in (full.parent / "figures").iterdir()} == DRAWN
    page_text = full.read_text(encoding="utf-8")  # there are no data behind the made study
    assert page_text.count('class="none"') == page_text.count('class="none">The data cannot be read now') == 1


def test_the_summary_says_what_helps_what_hurts_what_is_best_and_what_it_cost(full: Path) -> None:
    text = read(full).text
    assert re.search(r"\d+ help: \w+ low.*\+\d+\.\d %", text)
    assert re.search(r"\d+ hurt: \w+ high.*−\d+\.\d %", text)
    told = "Recipe: text_len low + num_words low + alnum_ratio low. Against a random sample of the same size: +1"
    assert told in text and "it was not compared with all your data" in text
    assert text.index(told) < text.index("Leaderboard")
    assert "of 66.7 min of device time" in text


def test_tables_hold_decisions_reasons_and_warnings(full: Path) -> None:
    text = read(full).text
    for words in (
        "person ada",
        "what probe wants",
        "too few rows",
        "out of memory",
        "text_action_filter",
        "text_len in [1, 2)",
    ):
        assert words in text
    assert "process:" in text and "text_length_filter" in text


def test_figures_are_images_with_something_on_them(full: Path) -> None:
    for name in DRAWN:
        with Image.open(full.parent / "figures" / f"{name}.png") as image:
            assert image.format == "PNG" and min(image.size) > 150
            low, high = image.convert("L").getextrema()
            assert low < 120 and high == 255


def test_nothing_is_loaded_from_anywhere(full: Path) -> None:
    html, page = full.read_text(encoding="utf-8"), read(full)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    assert all(v.startswith("#") for k, v in page.attributes if k in ("href", "xlink:href", "src"))


def test_ids_are_unique_and_references_lead_somewhere(full: Path) -> None:
    html, page = full.read_text(encoding="utf-8"), read(full)
    assert len(page.ids) == len(set(page.ids))
    wanted = {v[1:] for k, v in page.attributes if k in ("href", "xlink:href")} | set(
        re.findall(r"url\(#([^)]+)\)", html)
    )
    assert wanted <= set(page.ids)


def test_figures_take_their_colours_from_the_page(full: Path) -> None:
    html = full.read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert all("var(--ink)" in d for d in drawings)
    assert not [c for d in drawings for c in re.findall(r"#[0-9a-f]{6}\b(?!-)", d)]
    assert "prefers-color-scheme: dark" in html
    for drawing in drawings:
        ET.fromstring(re.sub(r"xlink:", "", drawing))


def test_the_same_database_gives_the_same_bytes(full: Path, tmp_path: Path) -> None:
    again = write_report(full.parent.parent, tmp_path)
    assert again.read_bytes() == full.read_bytes()
    for file in (full.parent / "figures").iterdir():
        assert (tmp_path / "figures" / file.name).read_bytes() == file.read_bytes()


def test_no_string_of_the_database_becomes_markup(tmp_path: Path) -> None:
    fake = Fake(tmp_path, name=EVIL, ops=3)
    fake.statistics = [f"{EVIL}]]>--><b>$x^2${i}" for i in range(3)]
    fake.probe()
    fake.later()
    fake.proposal("combine", [Pool(size=7)], why=EVIL)
    fake.store.event(EVIL, f"</style>{EVIL}\x07", EVIL, "error")
    fake.store.execute("UPDATE pool_cuts SET reason = ? WHERE reason IS NOT NULL", (EVIL,))
    fake.store.execute("UPDATE events SET at = ?", (at(1),))
    pool = fake.store.query("SELECT pool FROM pool_cuts WHERE verdict = 'ok'")[0]["pool"]
    terms = [{"word": f"{EVIL}\x07", "here": 0.5, "elsewhere": 0.01, "z": 9.0}]
    Result[Any]("terms", Any).put(fake.store, CONTEXT, {pool: terms})
    file = write_report(tmp_path, None)
    page = read(file)
    assert "50 % here, 1 % elsewhere" in page.text
    assert "script" not in page.tags and "<script" not in file.read_text(encoding="utf-8")
    assert not [k for k, _ in page.attributes if k.startswith("on")]
    assert 'alert("x")' in page.text


def test_words_of_buckets_and_duplicates_are_shown(tmp_path: Path) -> None:
    fake = Fake(tmp_path, ops=2)
    fake.probe()
    pool = fake.store.query("SELECT pool FROM pool_cuts WHERE verdict = 'ok'")[0]["pool"]
    terms = [{"word": w, "here": 0.4, "elsewhere": 0.1, "z": z} for w, z in (("lake", 8.0), ("boat", 4.0))]
    Result[Any]("terms", Any).put(fake.store, CONTEXT, {pool: terms})
    Result[Any]("duplicates", Any).put(
        fake.store, CONTEXT, {"rows": 3, "first": [{"row": 7, "original": 2, "op": "x"}]}
    )
    file = write_report(tmp_path, None)
    assert "3 rows of the data are like an earlier one and in no pool, among them: row 7 (like 2)." in read(file).text
    sizes = re.findall(r'font-size: ([\d.]+)em">(\w+)<', file.read_text(encoding="utf-8"))
    assert sizes == [("1.80", "lake"), ("1.35", "boat")]


def test_after_the_probe_alone_the_later_sections_say_so(tmp_path: Path) -> None:
    Fake(tmp_path).probe()
    (tmp_path / "report" / "figures").mkdir(parents=True)
    (tmp_path / "report" / "figures" / "lattice.png").write_bytes(b"old")
    page = read(write_report(tmp_path, None))
    assert set(SECTIONS) <= set(page.ids)
    for words in ("No combination has been trained yet", "repetition was not compared", "no gain is confirmed"):
        assert words in page.text
    assert "nothing is confirmed before it ends" in page.text
    drawn = {f.stem for f in (tmp_path / "report" / "figures").iterdir()}
    assert drawn == {"leaderboard", "buckets", "statistics", "metrics", "budget", "curves"}


def test_rows_that_are_kept_and_dropped_stand_in_the_report_as_text_only(probed: Tiny) -> None:
    file = write_report(probed.study, None)
    text = file.read_text(encoding="utf-8")
    inside = text[text.index('<section id="contents">') : text.index('<section id="budget">')]
    assert "Some rows that are kept" in inside and "Some rows that are dropped" in inside
    assert inside.count('src="data:image/png;base64,') > 6
    assert "</untrusted-data>" not in inside and "&lt;/untrusted-data&gt;" in inside


def test_one_seed_gives_changes_without_intervals(tmp_path: Path) -> None:
    Fake(tmp_path, seeds=1).probe()
    found = contents(tmp_path)
    text = " ".join(found["summary"])
    assert "on 1 seed and" in text and "a single seed gives no verdict" in text
    assert "leaderboard" in {p.name for p in draw(found)}


def test_without_a_winner_nothing_is_called_best(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    fake.probe(lambda i, bucket: 0.0)
    fake.later(gain=0.0)
    found = contents(tmp_path)
    assert "on fresh seeds none of 1 candidate is shown to beat a random sample" in found["no_recipe"]
    assert found["yaml"] is None and len(found["candidates"]) == 1


def test_without_a_task_it_describes_the_pools(tmp_path: Path) -> None:
    fake = Fake(tmp_path, task=None)
    pool = fake.pool([fake.slice(0, "low")], "text_len low", "single")
    place = {"op": pool.slices[0].op, "statistic": pool.slices[0].statistic, "bucket": "low"}
    cut = {"setup": CONTEXT, **place, "pool": pool.id, "kept": 4000, "entropy": None, "reason": None, "verdict": "ok"}
    fake.store.put("pool_cuts", cut)
    page = read(write_report(tmp_path, None))
    assert "The study has no task, so nothing was trained: 1 pools were cut" in page.text
    assert set(SECTIONS) <= set(page.ids)


def test_before_anything_was_recorded_but_the_study(tmp_path: Path) -> None:
    Fake(tmp_path)
    page = read(write_report(tmp_path, None))
    assert set(SECTIONS) <= set(page.ids) and "svg" not in page.tags


def test_a_folder_without_a_study_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        write_report(tmp_path, None)


@pytest.mark.parametrize("pools", [4, 60])
def test_a_figure_grows_with_its_rows_and_cuts_no_label(pools: int) -> None:
    from app.report.charts_evidence import forest

    rows = [
        {"label": f"{'statistic ' * (1 + i % 9)}low", "size": 10 * (i % 2), "change": 9.0 - i, "std": 1.0, "seeds": 3,
         "ci_low": 4.0 - i * i, "ci_high": 99.0, "verdict": "unclear", "share": (1.0, 0.25)[i % 2]}
        for i in range(pools)
    ]  # fmt: skip
    drawn = picture("leaderboard", "", lambda: forest(rows, 0.95))
    width, height = (float(x) for x in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn.svg)[0])
    assert height > 0.23 * 72 * pools and 600 < width < 900
    with Image.open(io.BytesIO(drawn.png)) as image:
        edge = np.asarray(image.convert("L"))
    assert min(edge[0].min(), edge[-1].min(), edge[:, 0].min(), edge[:, -1].min()) == 255


def test_formats() -> None:
    assert percent(12.34) == "+12.3\u00a0%" and percent(-0.04) == "+0.0\u00a0%" and percent(None) == "–"
    assert percent(-3.0) == "\u22123.0\u00a0%"
    assert interval(-1.0, 2.0) == "[\u22121.0,\u00a0+2.0]" and interval(None, None) == "–"


def test_labels_are_pushed_apart_and_stay_in_order() -> None:
    found = spread([1.0, 1.0, 1.1, 5.0], 0.5)
    assert all(b - a > 0.499 for a, b in pairwise(found))
    assert found[3] == 5.0


def test_scaled_pools_are_grouped_by_recipe() -> None:
    rows = [
        {"kind": "repetition", "label": "a ×2"}, {"kind": "layers", "label": "a + lower layers"},
        {"kind": "repetition", "label": "a ×2 ×4"},
    ]  # fmt: skip
    assert {k: len(v) for k, v in scaled(rows).items()} == {"a": 2, "a ×2": 1}
