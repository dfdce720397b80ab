"""Task lm: what it trains and measures, checkpoints that load elsewhere, and clear words for what is broken."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from engine.base.errors import DataError, MachineError, StudyError
from engine.demo.text import clean_text, facts, make_demo, questions
from engine.study.file import parse_study
from engine.study.opened import OpenStudy, open_study
from engine.tasks.contract import Job, Report
from engine.tasks.lm.choices import encode_questions, measure, read_questions
from engine.tasks.lm.model import log_likelihoods, pack_rows, sequences
from engine.tasks.lm.task import TASK, LmTask
from tests.conftest import Row, Tiny, merged, write_jsonl
from tests.engine.tasks.killing import ends_alike

torch.set_num_threads(1)
SETTINGS: Row = {
    "task": "lm",
    "dataset": {"images": None},
    "evaluation": {"label": None, "benchmarks": {"facts": "../data/facts.jsonl"}},
    "train": {"epochs": 4, "batch_size": 8, "learning_rate": 0.006},
}


@pytest.fixture
def words(tmp_path: Path) -> Tiny:
    """A study of clean text about towns, with questions; a trial takes a second."""
    towns = facts(0)[:3]
    rng = np.random.default_rng(0)
    rows: list[Row] = [{"id": i, "text": clean_text(towns[i % 3], rng)} for i in range(240)]
    made = Tiny(tmp_path, rows, [{"id": i, "text": clean_text(towns[i % 3], rng)} for i in range(20)])
    write_jsonl(made.train_file, made.rows)
    write_jsonl(made.test_file, made.test)
    write_jsonl(tmp_path / "data" / "facts.jsonl", questions(towns, 0))
    made.set(SETTINGS)
    return made


def test_its_memory_is_forecast_and_a_gpu_that_is_too_small_is_refused_before_weights_are_loaded(words: Tiny) -> None:
    made = opened(words)
    with made.store:
        memory = TASK.memory(made.study, made.prepared)
        assert memory is not None
        assert memory["weights"] == memory["gradients"] == memory["moments"] // 2 and memory["activations"] > 100_000
        weights = memory["weights"] + memory["gradients"] + memory["moments"]
        TASK.refuse_beyond(made.study, made.prepared, 2 * weights)
        with pytest.raises(MachineError, match="does not fit the GPU"):
            TASK.refuse_beyond(made.study, made.prepared, weights // 2)


def opened(tiny: Tiny) -> OpenStudy:
    return open_study(tiny.study, 1)


def run(tiny: Tiny, samples: int = 480, rows: int = 120, **job: Any) -> tuple[dict[str, float], list[float]]:
    """Metrics and losses of one trial."""
    losses: list[float] = []
    report = Report(lambda _kind, content: losses.append(content["values"]["loss"]))
    np.save(tiny.root / "rows.npy", np.arange(rows))
    asked = Job("t", str(tiny.root / "rows.npy"), samples, 0, None, "")
    with (study := opened(tiny)).store:
        return LmTask().run(study.study, study.prepared, Job(**{**vars(asked), **job}), report)["t"], losses


def test_a_trial_learns_the_facts_and_the_same_trial_gives_the_same_numbers(words: Tiny) -> None:
    little, _ = run(words, samples=16)
    much, losses = run(words, samples=1600)
    assert losses[-1] < losses[0] / 3
    assert much["log_perplexity"] < little["log_perplexity"]
    assert much["perplexity"] == pytest.approx(math.exp(much["log_perplexity"]))
    assert much["facts_likelihood"] > 0.5  # four choices; chance is 0.25
    assert little == run(words, samples=16)[0]
    assert little != run(words, samples=16, seed=1)[0]


def test_directions_and_scales_are_those_of_the_metrics(words: Tiny) -> None:
    with (study := opened(words)).store:
        found = {m.name: m for m in study.metrics}
        main = [m.name for m in study.main_metrics]
    assert [n for n, m in found.items() if not m.higher_is_better] == ["log_perplexity", "perplexity"]
    assert main == ["log_perplexity", "facts_accuracy", "facts_likelihood"]
    vocabulary = found["perplexity"].high
    assert found["log_perplexity"].high == pytest.approx(math.log(vocabulary))  # of a model that knows nothing
    assert run(words, samples=1)[0]["log_perplexity"] == pytest.approx(math.log(vocabulary), rel=0.1)


def test_a_trial_goes_on_from_its_pause_as_if_it_had_not_stopped(words: Tiny, tmp_path: Path) -> None:
    whole, _ = run(words)
    state = str(tmp_path / "state.safetensors")
    run(words, samples=240, horizon=480, pause=state)
    assert run(words, horizon=480, resume=state)[0] == whole


def test_a_trial_that_is_broken_off_on_its_way_goes_on_as_if_it_had_not_been(words: Tiny, tmp_path: Path) -> None:
    whole, losses = run(words)
    points: list[int] = []
    report = Report(lambda _kind, content: points.append(content["step"]), leaving=lambda: len(points) == 7)
    job = Job("t", str(words.root / "rows.npy"), 480, 0, None, "", park=str(tmp_path / "key"))
    with (study := opened(words)).store:
        assert LmTask().run(study.study, study.prepared, job, report) == {}
    (state,) = tmp_path.glob("key-*-480.safetensors")
    assert report.parked == {"t": int(state.stem.split("-")[1])} and 0 < report.parked["t"] < 480
    again, rest = run(words, resume=str(state))
    assert again == whole and rest == losses[7:]


def test_micro_batches_change_nothing_but_rounding(words: Tiny) -> None:
    whole, pieces = run(words, samples=160)[0], run(words, samples=160, micro_batch=3)[0]
    assert pieces["log_perplexity"] == pytest.approx(whole["log_perplexity"], rel=1e-3)


def test_all_pools_train_on_equally_many_tokens_whatever_their_rows_length(words: Tiny) -> None:
    with (study := opened(words)).store:
        prepared = study.prepared
    meta = json.loads((prepared / "meta.json").read_text())
    mean = np.mean([len(r["text"].split()) for r in words.rows])
    assert meta["tokens_per_row"] > mean
    assert sequences(meta, 1000) == round(1000 * meta["tokens_per_row"] / 64)
    table = pack_rows(prepared, np.arange(60), 64, seed=0)
    assert table.shape[1] == 64
    offsets = np.load(prepared / "train-offsets.npy")
    assert table.size <= offsets[60] < table.size + 64
    assert (table == meta["bos"]).sum() == pytest.approx(60, abs=4)  # whole rows, one after the other
    assert pack_rows(prepared, np.arange(1), 64, seed=0).shape == (1, 64)  # too few tokens are repeated


def test_a_checkpoint_loads_outside_with_its_tokenizer_and_takes_the_presets_place(words: Tiny, tmp_path: Path) -> None:
    trained, _ = run(words, output=str(tmp_path / "kept"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "kept")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "kept")
    text = words.test[0]["text"]
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]).strip() == text
    assert load_file(tmp_path / "kept" / "model.safetensors").keys() <= model.state_dict().keys()
    words.set(merged(SETTINGS, {"model": {"checkpoint": str(tmp_path / "kept")}, "train": {"learning_rate": 1e-6}}))
    again, _ = run(words, samples=16)
    assert again["log_perplexity"] == pytest.approx(trained["log_perplexity"], abs=0.05)


def test_any_causal_model_of_transformers_will_do(words: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "gpt2"
    with (study := opened(words)).store:
        tokenizer = AutoTokenizer.from_pretrained(study.prepared / "tokenizer")
    tokenizer.save_pretrained(folder)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=48)
    GPT2LMHeadModel(config).save_pretrained(folder)
    words.set(merged(SETTINGS, {"model": {"checkpoint": str(folder)}}))
    found, losses = run(words, samples=240)
    assert losses[-1] < losses[0]
    assert 0 < found["log_perplexity"] < math.log(len(tokenizer))
    with (study := opened(words)).store:
        inputs = study.task.inputs(study.study, study.folder, study.prepared)
    (counted,) = (i.line for i in inputs if i.unit == "tensors")
    assert counted == "weights of model.checkpoint: 16 of 16 tensors; AutoModelForCausalLM"


def broken_checkpoint(folder: Path, kind: str) -> None:
    """A checkpoint with one thing wrong."""
    if kind == "encoder":
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        BertModel(BertConfig(vocab_size=50, **shape)).save_pretrained(folder)
        return
    GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)
    if kind == "weights":
        (folder / "model.safetensors").unlink()
    if kind == "prefix":
        tensors = load_file(folder / "model.safetensors")
        renamed = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
        save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    if kind in ("small model", "no end"):
        from tokenizers import Tokenizer, models

        names = {} if kind == "no end" else {"eos_token": "w0"}
        words = {f"w{i}": i for i in range(20)}
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "w0")), **names).save_pretrained(
            folder
        )


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("encoder", "is a BertModel (bert); task lm needs a causal language model"),
        ("no tokenizer", "has no tokenizer that can be read"),
        ("weights", "has no *.safetensors"),
        ("prefix", "0 of 16 tensors of a AutoModelForCausalLM are in"),
        ("small model", "has 20 tokens and its model 8; they do not belong together"),
        ("no end", "names no eos_token"),
    ],
)
def test_a_checkpoint_that_cannot_serve_is_refused_in_one_line(
    words: Tiny, tmp_path: Path, kind: str, says: str
) -> None:
    broken_checkpoint(tmp_path / "broken", kind)
    words.set(merged(SETTINGS, {"model": {"checkpoint": str(tmp_path / "broken")}}))
    with (study := opened(words)).store, pytest.raises(StudyError) as caught:
        _ = study.prepared
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: not a JSON object"),
        ('{"choices": ["a", "b"], "answer": 0}', "line 2: it needs question or context"),
        ('{"question": "q", "choices": ["a"], "answer": 0}', "line 2: choices must be two or more texts"),
        ('{"question": "q", "choices": ["a", "b"], "answer": 2}', "line 2: answer '2' is none of its 2 choices"),
        ('{"question": "q", "choices": ["a", "b"], "answer": "E"}', "line 2: answer 'E' is none of its 2 choices"),
        ('{"question": "q", "choices": ["a", "b"], "answer": true}', "line 2: answer 'True' is none of its 2 choices"),
    ],
)
def test_a_broken_question_is_named_by_file_and_line(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "quiz.jsonl"
    file.write_text('{"context": "c", "choices": ["a", "b"], "answer": "B"}\n' + line)
    with pytest.raises(DataError) as caught:
        read_questions("quiz", file)
    assert f"{file}, {says}" in str(caught.value)
    good = '{"context": "c", "choices": ["a", "b"], "answer": "B"}\n'
    file.write_text(good * 9 + line, encoding="utf-8-sig")
    found = read_questions("quiz", file)
    assert len(found) == 9 and found.accounting.line.startswith("benchmark quiz: 9 of 10 questions; left out: 1 n")
    file.write_text("\n")
    with pytest.raises(DataError, match="has no questions"):
        read_questions("quiz", file)


def test_a_list_asks_what_lines_ask(tmp_path: Path) -> None:
    rows: list[Row] = [{"question": f"q{n}", "choices": ["a", "b"], "answer": n} for n in (0, 1)]
    (tmp_path / "quiz.json").write_text(json.dumps(rows, indent=1))
    lines = write_jsonl(tmp_path / "quiz.jsonl", rows)
    assert read_questions("quiz", tmp_path / "quiz.json") == read_questions("quiz", lines)


def test_answers_may_be_places_letters_or_texts(tmp_path: Path) -> None:
    rows: list[Row] = [{"question": "q", "choices": ["a", "b", "c"], "answer": a} for a in (1, "B", "b")]
    assert [q.answer for q in read_questions("quiz", write_jsonl(tmp_path / "quiz.jsonl", rows))] == [1, 1, 1]


def test_choices_are_scored_on_their_own_tokens_and_normalised_by_bytes() -> None:
    """Against numbers by hand: two questions of two choices."""
    saved = {
        "question": np.array([0, 0, 1, 1]),
        "right": np.array([True, False, False, True]),
        "bytes": np.array([2, 1, 4, 2]),
    }
    found = measure("quiz", np.log([0.3, 0.1, 0.6, 0.2]), saved)
    assert found["quiz_accuracy"] == 0.5
    assert found["quiz_likelihood"] == pytest.approx((0.3 / 0.4 + 0.2 / 0.8) / 2)
    # per byte: ln .3 / 2 > ln .1; ln .6 / 4 > ln .2 / 2
    assert found["quiz_accuracy_norm"] == 0.5
    level = measure("quiz", np.zeros(4), saved)
    assert (level["quiz_accuracy"], level["quiz_likelihood"]) == (0.0, 0.5)  # a tie is no right answer

    def encode(texts: list[str]) -> list[list[int]]:
        return [[ord(c) for c in t] for t in texts]

    from engine.tasks.lm.choices import Question

    arrays = encode_questions([Question("ab", ("c", "de"), 1)], encode, 1, length=5)
    assert arrays["ids"].tolist() == [[1, 97, 98, 32, 99], [97, 98, 32, 100, 101]]  # a long one loses its beginning
    assert arrays["starts"].tolist() == [3, 2]
    assert arrays["bytes"].tolist() == [2, 3]


def test_log_likelihoods_are_those_of_the_model_text_by_text() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=16, n_layer=1, n_head=2, n_positions=8)).eval()
    texts = [np.array([1, 2, 3], np.int32), np.array([4, 5, 6, 7, 8], np.int32)]
    found = log_likelihoods(model, texts, [1, 3])
    for text, start, value in zip(texts, (1, 3), found, strict=True):
        logits = model(torch.from_numpy(text.astype(np.int64))[None]).logits[0].log_softmax(-1)
        by_hand = sum(logits[i - 1, text[i]].item() for i in range(start, len(text)))
        assert value == pytest.approx(by_hand, rel=1e-5)


def test_it_must_have_something_to_be_judged_by() -> None:
    base = "name: a\ntask: lm\ndataset: {path: x}\nops: {}\n"
    with pytest.raises(StudyError, match=r"task lm needs evaluation\.path"):
        parse_study(base)
    assert parse_study(base + "evaluation: {benchmarks: {quiz: q.jsonl}}\n").task == "lm"
    with pytest.raises(StudyError, match=r"model\.preset: task lm has tiny, small, smol-135m \(it is 'vit-b-32'\)"):
        parse_study(base + "evaluation: {path: y}\nmodel: {preset: vit-b-32}\n")


def test_questions_alone_are_enough(words: Tiny) -> None:
    words.set(merged(SETTINGS, {"evaluation": {"path": None}}))
    found, _ = run(words, samples=16)
    assert set(found) == {"facts_accuracy", "facts_accuracy_norm", "facts_likelihood"}


def test_other_questions_are_other_trials(words: Tiny) -> None:
    with (study := opened(words)).store:
        before = study.setup
    file = words.root / "data" / "facts.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    with (study := opened(words)).store:
        assert study.setup != before


@pytest.mark.long
def test_killed_and_resumed_it_ends_alike(words: Tiny) -> None:
    ends_alike(words, SETTINGS)


def test_the_demo_is_what_it_says(tmp_path: Path) -> None:
    files = make_demo(tmp_path / "demo", 300, 20)
    train, truth = ([json.loads(line) for line in f.read_text().splitlines()] for f in (files.train, files.truth))
    again = make_demo(tmp_path / "again", 300, 20)
    assert files.train.read_bytes() == again.train.read_bytes()
    towns = {t.town: t for t in facts(0)}
    clean = [(r["text"], t["town"]) for r, t in zip(train, truth, strict=True) if not t["defects"]]
    assert 0.3 < len(clean) / 300 < 0.5
    for text, town in clean:  # every colour that a clean text names is the right one
        named = {c for c in ("red", "green", "blue", "yellow") if f" {c}" in text}
        assert named <= {towns[town].colour}
    for line in (tmp_path / "demo" / "questions.jsonl").read_text().splitlines():
        asked = json.loads(line)
        town = next(t for t in towns.values() if t.town in asked["question"])
        assert asked["choices"][asked["answer"]] in (town.colour, town.shape, town.material)
