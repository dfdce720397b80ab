"""The causal language model of task `lm`: presets, packing of rows to sequences, training, log-likelihoods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.settings.study import Study
from engine.tasks.contract import Job, Report
from engine.tasks.shared.batches import prefetched, to_device
from engine.tasks.shared.caches import read_meta
from engine.tasks.shared.checkpoints import checkpoint_of
from engine.tasks.shared.procedure import autocast, load_dtype, the_device
from engine.tasks.shared.training import Course, accumulate, batches, fit, micro_batch
from engine.tasks.shared.weights import EARLIER, Weights

if TYPE_CHECKING:
    import torch

    from engine.tasks.shared.memory import Shell

Tokens = NDArray[np.int32]
EVALUATED = 2**14  # tokens that are scored at once


@dataclass(frozen=True)
class Preset:
    """One complexity dial of a Llama. length: tokens of a sequence. key_heads: heads of keys and values."""

    width: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    length: int
    vocabulary: int


PRESETS = {
    "tiny": Preset(64, 2, 2, 2, 176, 64, 768),
    "small": Preset(256, 6, 4, 4, 688, 256, 8192),
    "smol-135m": Preset(576, 30, 9, 3, 1536, 2048, 49152),  # the shape of SmolLM-135M
}


def llama_config(preset: Preset, vocabulary: int, bos: int, eos: int, pad: int) -> dict[str, Any]:
    """The keyword arguments of a LlamaConfig. vocabulary: tokens that the tokenizer has."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": preset.width,
        "intermediate_size": preset.inner,
        "num_hidden_layers": preset.layers,
        "num_attention_heads": preset.heads,
        "num_key_value_heads": preset.key_heads,
        "max_position_embeddings": preset.length,
        "tie_word_embeddings": True,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
    }


def weights_of(source: Path, field: str = "model.checkpoint") -> Weights:
    """The weights in a checkpoint's folder."""
    return Weights(field, "transformers.AutoModelForCausalLM", source)


def build_model(study: Study, prepared: Path, seed: int, init: str | None) -> Any:
    """The model on this worker's device: from a checkpoint, or from the preset with seeded weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    if source := init or checkpoint_of(study, prepared.parents[2]):
        weights = weights_of(Path(source), EARLIER if init else "model.checkpoint")
        model: Any = weights.load(dtype=load_dtype(study))
    else:
        meta = read_meta(prepared)
        tokens = {name: meta[name] for name in ("vocabulary", "bos", "eos", "pad")}
        model = LlamaForCausalLM(LlamaConfig(**llama_config(PRESETS[study.model.preset], **tokens)))
    return model.to(the_device())


def shell(study: Study, prepared: Path) -> Shell:
    """The model without weights, and the loss of sequences."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from engine.tasks.shared.memory import language, without_weights

    meta, checkpoint = read_meta(prepared), checkpoint_of(study, prepared.parents[2])
    if checkpoint:
        model: Any = without_weights(weights_of(checkpoint))
    else:
        tokens = {name: meta[name] for name in ("vocabulary", "bos", "eos", "pad")}
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(**llama_config(PRESETS[study.model.preset], **tokens)))
    return language(model, meta["length"], study.train.batch_size)


def pack_rows(prepared: Path, rows: NDArray[np.int64], length: int, seed: int) -> Tokens:
    """(sequences, length) tokens of the rows, one after the other in a seeded order, cut to sequences.

    What is left at the end is dropped; rows that fill no sequence are repeated until they do.
    """
    offsets = np.load(prepared / "train-offsets.npy", mmap_mode="r")
    stream = np.memmap(prepared / "train-tokens.bin", np.int32, "r")
    order = np.random.default_rng([seed, 1]).permutation(rows)
    joined = np.concatenate([stream[offsets[row] : offsets[row + 1]] for row in order.tolist()])
    if len(joined) < length:
        joined = np.resize(joined, length)
    return joined[: len(joined) // length * length].reshape(-1, length)


def sequences(meta: dict[str, Any], samples: int) -> int:
    """Sequences for a number of rows of average length, so that all pools train on equal tokens."""
    return max(1, round(samples * float(meta["tokens_per_row"]) / int(meta["length"])))


def train(model: Any, study: Study, prepared: Path, rows: NDArray[np.int64], job: Job, report: Report) -> bool:
    """Train on those rows, packed. True, or False when the trial was dropped."""

    meta = read_meta(prepared)
    table = pack_rows(prepared, rows, meta["length"], job.seed)
    batch = study.train.batch_size
    count = partial(sequences, meta)
    device = next(model.parameters()).device

    def inputs(order: Iterator[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        return prefetched((to_device(table[chosen].astype(np.int64), device) for chosen in order), device)

    return fit(
        model, study, job, report, Course.of(job, batch, count),
        order=batches(np.arange(len(table)), count(job.samples), batch, job.seed), inputs=inputs,
        backward=partial(_backward, model, micro_batch(study, job, batch)),
    )  # fmt: skip


def _backward(model: Any, micro: int, ids: torch.Tensor) -> torch.Tensor:
    """Gradients of the mean loss of the next token over a batch (batch, length), `micro` sequences at once."""

    def loss(at: slice) -> torch.Tensor:
        part = ids[at]
        mean: torch.Tensor = model(input_ids=part, labels=part, use_cache=False).loss * (len(part) / len(ids))
        return mean

    return accumulate(ids.device, len(ids), micro, loss)


def log_likelihoods(model: Any, texts: Sequence[Tokens], starts: Sequence[int]) -> NDArray[np.float64]:
    """(texts,) sums of log p(token | tokens before it) over the tokens from `start` on, in nats.

    texts: token ids, each at most as long as the model takes. starts: 1 or more; the first token is never scored.
    """
    import torch
    from torch.nn import functional

    model.eval()
    device = next(model.parameters()).device
    found = np.zeros(len(texts))
    order = np.argsort([-len(t) for t in texts], kind="stable").tolist()
    while order:
        width = len(texts[order[0]])
        chosen, order = order[: max(1, EVALUATED // width)], order[max(1, EVALUATED // width) :]
        ids = np.zeros((len(chosen), width), np.int64)
        scored = np.zeros((len(chosen), width), bool)
        for i, place in enumerate(chosen):
            ids[i, : len(texts[place])] = texts[place]  # what follows a text cannot change what is before it
            scored[i, starts[place] : len(texts[place])] = True
        batch = torch.from_numpy(ids).to(device)
        with torch.inference_mode(), autocast(device):
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        losses = functional.cross_entropy(logits.float().transpose(1, 2), batch[:, 1:], reduction="none")
        losses = losses * torch.from_numpy(scored[:, 1:]).to(device)
        found[chosen] = -losses.sum(1).double().cpu().numpy()
    return found
