"""The demo world of task t2v: clips of one moving shape with web-like captions, whose defects and answers are known.

    make_demo(Path("demo"))     # 1200 training clips, 96 test clips, well under a minute, no download

A scene is one shape (circle, square, triangle) of one colour (red, green, blue, yellow) that moves left, right, up
or down, slowly or quickly, over a greyish background: 48 classes, `red circle moving left`. A training row is a
clip (an mp4 of 12–20 frames at 8 frames a second, sides of 32–44 px) and a caption, each with the defects that the
web has, drawn on their own with the probabilities in CAPTION_DEFECTS and CLIP_DEFECTS. The test rows are clean
and balanced; their label is the right answer.

Captions: mismatched (a fluent caption of another class; no statistic of the text shows it), wrong_motion (the right
object, another direction; none shows it either), file_name (says nothing), spammed (8–20 shop keywords, a
third of them colours and shapes; the caption is lost in most).
Clips: static (nothing moves), flickering (every frame has a brightness of its own and strong noise), stretched
(one side two to three times the other), short (2–5 frames; what is missing stands still).

What is right to find, if the method works (low, mid and high are the thirds of a statistic's values):
- text_length_filter, words_num_filter: high hurts (spam). special_characters_filter: high hurts (spam, file
  names); alphanumeric_filter is its mirror image.
- video_motion_score_filter with sampling_fps 8 (every frame): high hurts (nearly all of it flickers); low helps most,
  its few static clips cost less than flicker does; mid helps as far as it is free of flicker.
- video_duration_filter: low holds the short clips. video_aspect_ratio_filter: low and high hold the stretched ones.
- video_resolution_filter: near neutral but for stretched clips.
This text is for people: no code reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.demo.files import DemoFiles, Line, Rng, build, drawn, pick, write_rows
from engine.demo.images import COLOURS, FILE_NAMES, spammed
from engine.tasks.shared.videos import write_clip

VERSION = 2  # raised whenever the same arguments give other bytes than before
SHAPES = ("circle", "square", "triangle")
MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
LABELS = tuple(f"{c} {s} moving {m}" for c in COLOURS for s in SHAPES for m in MOTIONS)
RATE = 8  # frames a second
ROWS, TESTED = 1200, 96
# defect → its probability; they are drawn independently and applied in this order
CAPTION_DEFECTS = {"mismatched": 0.10, "wrong_motion": 0.08, "file_name": 0.15, "spammed": 0.25}
CLIP_DEFECTS = {"static": 0.15, "flickering": 0.45, "stretched": 0.08, "short": 0.12}
TEMPLATES = (
    "a {colour} {shape} moving {motion}",
    "the {colour} {shape} moves {motion} {speed}",
    "a {shape}, {colour}, moving {motion}",
    "video of a {colour} {shape} that moves {motion}",
    "clip: a {colour} {shape} moving {speed} {motion}",
)
_TRAIN, _TEST = 0, 1


def make_demo(folder: Path, rows: int = ROWS, test_rows: int = TESTED, seed: int = 0) -> DemoFiles:
    """Write the demo into `folder`, or reuse the one of the same arguments that is there; see `files.build`."""

    def write(draft: Path) -> None:
        write_train(draft, rows, seed)
        write_test(draft, test_rows, seed)

    arguments = {"world": "video", "version": VERSION, "rows": rows, "test_rows": test_rows, "seed": seed}
    return build(folder, arguments, write, ["videos"])


@dataclass(frozen=True)
class Motion:
    """A clip before it is drawn; the same one always renders to the same frames.

    x, y: centre of the path, as fractions of the sides. size: the shape's diameter, as a fraction of the shorter
    side. speed: way per frame, as a fraction of the side. frames: their number.
    """

    shape: str
    colour: str
    motion: str
    tint: tuple[int, int, int]
    grey: tuple[int, int, int]
    x: float
    y: float
    size: float
    speed: float
    frames: int
    width: int
    height: int

    @property
    def label(self) -> str:
        """The class name, `red circle moving left`."""
        return f"{self.colour} {self.shape} moving {self.motion}"


def draw_motion(label: str, rng: Rng) -> Motion:
    """A random clip of the class."""
    colour, shape, _, motion = label.split()
    red, green, blue = (int(channel + rng.integers(-20, 21)) for channel in COLOURS[colour])
    grey = rng.uniform(90, 160) + rng.uniform(-6, 6, 3)
    return Motion(
        shape=shape,
        colour=colour,
        motion=motion,
        tint=(red, green, blue),
        grey=(int(grey[0]), int(grey[1]), int(grey[2])),
        x=float(rng.uniform(0.42, 0.58)),
        y=float(rng.uniform(0.42, 0.58)),
        size=float(rng.uniform(0.36, 0.44)),
        speed=float(rng.uniform(0.022, 0.042)),
        frames=int(rng.integers(12, 21)),
        width=2 * int(rng.integers(16, 23)),
        height=2 * int(rng.integers(16, 23)),
    )


def render_clip(scene: Motion) -> NDArray[np.uint8]:
    """(frames, height, width, 3): the shape on its way, at the middle of its path in the middle frame."""
    step = MOTIONS[scene.motion]
    clip = []
    for number in range(scene.frames):
        along = (number - (scene.frames - 1) / 2) * scene.speed
        x, y = (scene.x + along * step[0]) * scene.width, (scene.y + along * step[1]) * scene.height
        clip.append(_frame(scene, x, y))
    return np.stack(clip)


def _frame(scene: Motion, x: float, y: float) -> NDArray[np.uint8]:
    """One frame with the shape's centre at (x, y) pixels."""
    image = Image.new("RGB", (scene.width, scene.height), scene.grey)
    mask = Image.new("L", (scene.width * 4, scene.height * 4))  # four times as large: smooth edges
    draw = ImageDraw.Draw(mask)
    reach = 4 * scene.size * min(scene.width, scene.height) / 2
    left, top, right, bottom = 4 * x - reach, 4 * y - reach, 4 * x + reach, 4 * y + reach
    if scene.shape == "circle":
        draw.ellipse((left, top, right, bottom), fill=255)
    elif scene.shape == "square":
        draw.rectangle((left, top, right, bottom), fill=255)
    else:
        draw.polygon([(left, bottom), (right, bottom), (4 * x, top)], fill=255)
    image.paste(scene.tint, mask=mask.resize(image.size, Image.Resampling.BOX))
    return np.asarray(image)


def clean_caption(scene: Motion, rng: Rng, label: str | None = None) -> str:
    """A caption that names the clip's class, or the class `label` in its place."""
    colour, shape, _, motion = (label or scene.label).split()
    template = pick(rng, TEMPLATES)
    return template.format(
        colour=colour, shape=shape, motion=motion, speed="slowly" if scene.speed < 0.032 else "quickly"
    )


def web_caption(scene: Motion, rng: Rng) -> tuple[str, list[str]]:
    """A caption as the web has it, and its defects in order of application."""
    defects = drawn(CAPTION_DEFECTS, rng)
    colour, shape, _, motion = scene.label.split()
    if "mismatched" in defects:
        colour, shape, _, motion = _other(LABELS, scene.label, rng).split()
    if "wrong_motion" in defects:
        motion = _other(tuple(MOTIONS), scene.motion, rng)
    text = clean_caption(scene, rng, f"{colour} {shape} moving {motion}")
    if "file_name" in defects:
        number, copy = int(rng.integers(100_000)), int(rng.integers(1, 10))
        text = pick(rng, FILE_NAMES[:2]).format(n=number, k=copy)
    if "spammed" in defects:
        text = spammed(text, rng)
    return text, defects


def web_clip(scene: Motion, rng: Rng) -> tuple[NDArray[np.uint8], list[str]]:
    """A clip as the web has it, and its defects in order of application."""
    defects = drawn(CLIP_DEFECTS, rng)
    clip = render_clip(replace(scene, speed=0) if "static" in defects else scene)
    if "flickering" in defects:
        light = rng.uniform(-60, 60, (len(clip), 1, 1, 1))
        clip = np.clip(clip + light + rng.normal(0, 35, clip.shape), 0, 255).astype(np.uint8)
    if "stretched" in defects:
        clip = _stretched(clip, rng)
    if "short" in defects:
        clip = clip[: int(rng.integers(2, 6))]
    return clip, defects


def _stretched(clip: NDArray[np.uint8], rng: Rng) -> NDArray[np.uint8]:
    """The clip pulled to a long side of about two to three times the short one, of about the same area."""
    ratio = float(rng.uniform(2, 3))
    area = clip.shape[1] * clip.shape[2]
    short = 2 * round(math.sqrt(area / ratio) / 2)
    long = 2 * round(short * ratio / 2)
    size = (long, short) if rng.random() < 0.5 else (short, long)
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BILINEAR)) for f in clip])


def _other(options: tuple[str, ...], than: str, rng: Rng) -> str:
    return pick(rng, [o for o in options if o != than])


def write_train(folder: Path, rows: int, seed: int) -> None:
    """train.jsonl, truth.jsonl and videos/train/…; row i hangs on (seed, i) only."""

    def row(number: int, rng: Rng) -> tuple[Line, Line]:
        scene = draw_motion(pick(rng, LABELS), rng)
        text, caption_defects = web_caption(scene, rng)
        clip, clip_defects = web_clip(scene, rng)
        name = f"videos/train/{number:06d}.mp4"
        write_clip(clip, folder / name, RATE)
        return {"text": text, "videos": [name]}, {"label": scene.label, "defects": caption_defects + clip_defects}

    (folder / "videos" / "train").mkdir(parents=True)
    write_rows(folder, rows, (seed, _TRAIN), row, "train.jsonl", "truth.jsonl")


def write_test(folder: Path, rows: int, seed: int) -> None:
    """test.jsonl and videos/test/…: clean clips of all classes in turn, with their label."""

    def row(number: int, rng: Rng) -> tuple[Line]:
        scene = draw_motion(LABELS[number % len(LABELS)], rng)
        name = f"videos/test/{number:06d}.mp4"
        write_clip(render_clip(scene), folder / name, RATE)
        return ({"text": clean_caption(scene, rng), "videos": [name], "label": scene.label},)

    (folder / "videos" / "test").mkdir(parents=True)
    write_rows(folder, rows, (seed, _TEST), row, "test.jsonl")
