"""Sections of `study.yaml`: the model and its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from engine.settings.section import Section, later


class ModelSection(Section):
    """The reference model."""

    preset: str = Field(
        "tiny", description="tiny: seconds on a CPU core; docs/guides/tasks.md lists those of each task"
    )
    checkpoint: str | None = Field(
        None, description="local folder of a checkpoint of the task's kind; replaces the preset"
    )


class LoraSection(Section):
    """Low-rank adapters in place of full fine-tuning (Hu et al. 2021)."""

    rank: int = Field(0, ge=0, description="rank of the adapters; 0: all weights are trained")
    alpha: float = Field(16.0, gt=0, description="their scale: alpha / rank")
    targets: tuple[str, ...] | None = Field(
        None, description="names of the layers that get one; null: those that the task names"
    )


class VlmSection(Section):
    """Image-to-text models (tasks vlm and caption)."""

    vision: str | None = Field(
        None, description="local folder of a CLIP vision checkpoint; with language it replaces the preset"
    )
    language: str | None = Field(
        None, description="local folder of a causal language model, joined to vision by a new projector"
    )
    vision_high: str | None = later(
        None, description="local folder of a ConvNeXt; with vision and language it makes a Mini-Gemini"
    )
    trains: Literal["projector", "all"] = Field(
        "projector",
        description="vlm: what the pool trains without lora; the preset tiny knows nothing yet and needs all",
    )
    instructions: str | None = Field(
        None, description="vlm: question–answer rows of the second stage, the same for all trials; null: no such stage"
    )
    instruction_epochs: float = Field(1.0, gt=0, description="vlm: passes over the instructions")
    instruction_rate: float | None = Field(
        None, gt=0, description="vlm: peak learning rate of the second stage; null: train.learning_rate"
    )
    prompt: str = Field(
        "Provide a one-sentence caption for the provided image.",
        min_length=1,
        description="caption: what the model is asked (the paper's baseline prompt, Table 16)",
    )
    java: bool = Field(
        False, description="caption: words by the PTB tokenizer, and METEOR, as published; both need java"
    )
    answer_tokens: int = Field(24, ge=1, description="tokens of a generated answer or caption at most")


class VideoSection(Section):
    """Text-to-video models (task t2v)."""

    objective: Literal["denoising", "distillation"] = later(
        "denoising", description="what is trained; distillation: a UNet as a consistency model (section distill)"
    )
    drop_text: float = Field(0.1, ge=0, lt=1, description="share of captions left out in training, for guidance")
    frames: int | None = later(None, ge=1, le=512, description="frames of a clip; null: as the preset has them")
    stride: int | None = later(None, ge=1, le=64, description="2 takes every other frame; null: as the preset has it")
    side: int | None = later(None, ge=8, le=2048, description="pixels of a clip's side; null: as the preset has them")
    fps: float | None = later(
        None, gt=0, le=240, description="frames a second of clips, as an LTX model is told; null: 25"
    )
    latents: Literal["mean", "sample"] = later(
        "mean", description="of what the autoencoder makes of a clip: its mean, or a new draw at each step"
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="seeds that stand for a pool's first, second, … seed in place of 0, 1, … (the paper: 42, 45)"
    )
    samples: int = Field(
        0, ge=0, description="clips made for the captions of evaluation rows and scored; 0: only the held-out loss"
    )
    steps: int = Field(12, ge=1, le=1000, description="denoising steps of a clip")
    guidance: float = Field(2.0, ge=0, description="scale of classifier-free guidance")
    checks: bool = Field(
        False, description="exact checks of colour, object and motion by evaluation.label, as in the demo world"
    )
    clip: str | None = Field(
        None, description="local folder of a transformers CLIP, for subject_consistency and text_similarity"
    )
    detector: str | None = Field(
        None, description="local folder of a VideoMAE, ViViT or TimeSformer, for fvd; null: left out"
    )
    vbench: str | None = Field(
        None, description="command that runs VBench in its own environment, with {videos}, {prompts}, {out}"
    )
    vbench_prompts: str | None = Field(
        None, description="text file with a prompt a line; null: the captions of the sampled evaluation rows"
    )
    vbench_each: int = Field(5, ge=1, description="clips of each prompt (VBench: 5)")
    vbench_dimensions: tuple[str, ...] | None = Field(
        None, description="dimensions that the command measures; null: all 16, and the scores of the board"
    )
    vbench_seconds: float = Field(7200.0, gt=0, description="time that the command may take for one trial")

    @field_validator("vbench")
    @classmethod
    def _has_its_places(cls, command: str | None) -> str | None:
        if command is not None and not all(place in command for place in ("{videos}", "{out}")):
            raise ValueError("the command needs {videos} and {out} (docs/guides/tasks.md shows one)")
        return command


class DistillSection(Section):
    """Consistency distillation with rewards (task t2v, video.objective: distillation; Li et al. 2024, T2V-Turbo)."""

    start: str | None = Field(
        None, description="local folder of a student, as a trial keeps it, to begin from; null: the teacher itself"
    )
    teacher: Literal["base", "start"] = Field(
        "base", description="base: model.checkpoint; start: what the trial begins from, a student of an earlier round"
    )
    consistency_weight: float = Field(1.0, ge=0, description="of the distance between student and target")
    real_weight: float = Field(0.0, ge=0, description="of the distance between student and the clip itself")
    image_weight: float = Field(1.0, ge=0, description="of the reward of single frames; 0: none")
    video_weight: float = Field(2.0, ge=0, description="of the reward of whole clips; 0: none")
    image_model: str | None = Field(None, description="local folder of a CLIP that rewards frames for their caption")
    video_model: str | None = Field(None, description="local folder of an X-CLIP, or CLIP, that rewards clips")
    image_frames: int = Field(5, ge=1, description="frames of a clip, drawn at random, that are rewarded")
    video_frames: int = Field(8, ge=1, description="frames of a clip, spread evenly, that its reward looks at")
    scales: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = Field(
        (5.0, 15.0), description="least and greatest w of guidance, by which the student is told; scale 1 is w = 0"
    )
    solver_steps: int = Field(50, ge=1, le=1000, description="steps of the DDIM solver over all noise")
    ema: float = Field(0.95, ge=0, lt=1, description="of the target's weights from step to step; 0: the student's own")
    huber: float = Field(0.001, gt=0, description="where the distance turns from squared to absolute")

    @field_validator("scales")
    @classmethod
    def _rise(cls, scales: tuple[float, float]) -> tuple[float, float]:
        if scales[0] > scales[1]:
            raise ValueError("the least w comes first, as [5, 15]")
        return scales


class TrainSection(Section):
    """How every trial is trained; the same for all pools."""

    epochs: float = Field(4.0, gt=0, description="passes over a pool of the common size; 0.5 is half a pass")
    batch_size: int = Field(64, ge=2, description="rows of a step; clip contrasts them with each other")
    micro_batch: int | None = Field(
        None, ge=1, description="rows that go through the model at once; halved when memory runs out"
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.1, ge=0, description="weight decay of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps of linear warm-up; then cosine to zero")
    warmup_steps: int | None = later(
        None, ge=0, description="steps of the warm-up, in place of a share of all, as DataComp's 500"
    )
    decay: Literal["all", "matrices"] = later(
        "all", description="what weight decay acts on; matrices: not on norms, biases and scales, as open_clip has it"
    )
    crop: tuple[Annotated[float, Field(ge=0.5, le=1)], Annotated[float, Field(ge=0.5, le=1)]] | None = later(
        None,
        description="clip: share of an image's area that is cut out of it at random for each step, at least and at "
        "most, as DataComp's [0.9, 1]; null: images are always the same",
    )
    clip_norm: float = Field(1.0, gt=0, description="norm to which gradients are clipped")
    keep_checkpoints: int = Field(3, ge=0, description="checkpoints that are kept, best first")
    precision: Literal["auto", "fp32", "tf32", "bf16"] = later(
        "auto",
        description="of matrix products; trained weights are fp32 in any case. auto: bf16 on a GPU that has it, tf32 "
        "on an older one, fp32 on a CPU",
    )
    optimizer: Literal["adamw", "adamw8bit"] = later(
        "adamw", description="adamw8bit: its moments take 2 bytes a weight in place of 8; needs djsb[adam8]"
    )
    activation_checkpointing: Literal["auto", "on", "off"] = later(
        "auto",
        description="on: activations are made again in the backward pass, which takes a third more time; auto: where "
        "a GPU's memory needs it",
    )
    compile: Literal["auto", "on", "off"] = later(
        "auto", description="the model's blocks by torch.compile, on a GPU only; auto: where a timing says that it pays"
    )

    @field_validator("crop")
    @classmethod
    def _rises(cls, crop: tuple[float, float] | None) -> tuple[float, float] | None:
        if crop is not None and crop[0] > crop[1]:
            raise ValueError("the least share comes first, as [0.9, 1]")
        return crop
