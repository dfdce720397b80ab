"""The demo world of task `clip`: images of shapes with web-like captions, whose defects and right answers are known.

    make_demo(Path("demo"))     # 3000 training rows, 600 test rows, a few seconds, no download

A scene is one shape (circle, square, triangle, star) of one colour (red, green, blue, yellow) on a greyish
background: 16 classes. A training row is a scene and a caption, each with the defects that the web has. Every
defect is drawn on its own, with the probabilities in CAPTION_DEFECTS and IMAGE_DEFECTS, so about 38 % of the
rows have a clean caption and 68 % a clean image. The test rows are clean and balanced: what a model learns is
judged by zero-shot classification with the class names, or by retrieval.

Captions: mismatched (a fluent caption of another class; no statistic of the text shows it), file_name (a file
name or URL; one in four carries the class), truncated (ends before the class words), repeated (a caption, the
name of any class or a shop word, many times), spammed (8–20 shop keywords, a third of them colours and shapes
of any class; the caption is lost in 70 %, and pushed behind the keywords in 15 %).
Images: blurred, tiny (sides of 8–12 px), stretched (long side 3–6 times the short one, same area), noisy
(sensor noise and a JPEG of quality 10–25). An ordinary side is 28–40 px.

What is right to find, if the method works (low, mid and high are the thirds of a statistic's values):
- text_length_filter, words_num_filter: high hurts most (spam, repetition), mid helps most; low is between the
  two, as truncated captions and file names are short, but say little that is false.
- special_characters_filter: high hurts (spam, file names, stubs), mid and low help.
- alphanumeric_filter is its mirror image: low hurts, mid and high help.
- character_repetition_filter, word_repetition_filter: high hurts. Both are 0 for most rows (72 % and 90 % at
  their default windows), a tie that fills low and mid.
- image_size_filter (bytes): low holds nearly all blurred, tiny and noisy images, so it is the worst of the
  three, but not by much; mid and high differ in PNG against JPEG and in kind of background, not in quality.
- image_shape_filter (width, height): low is a little worse at most (tiny, stretched); mid and high are alike.
- image_aspect_ratio_filter: near neutral, as stretches are rare.
- Captions matter much more than images, whose defects leave the colour readable: a short training by a small
  model may well find every image statistic neutral. Mismatches cap what a recipe of these can reach.
This text is for people: no code reads it.
"""

import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from engine.demo.files import DemoFiles, Line, Rng, build, drawn, pick, write_rows

VERSION = 1  # raised whenever the same arguments give other bytes than before
SHAPES = ("circle", "square", "triangle", "star")
COLOURS = {"red": (205, 45, 45), "green": (50, 165, 65), "blue": (50, 80, 205), "yellow": (220, 200, 50)}
CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
BACKGROUNDS = ("noisy", "striped", "shaded")
# defect → its probability; they are drawn independently and applied in this order
CAPTION_DEFECTS = {"mismatched": 0.15, "file_name": 0.15, "truncated": 0.16, "repeated": 0.16, "spammed": 0.25}
IMAGE_DEFECTS = {"blurred": 0.12, "tiny": 0.08, "stretched": 0.06, "noisy": 0.10}
TEMPLATES = (
    "a {colour} {shape}",
    "the {shape} is {colour}",
    "photo of a {size} {colour} {shape}",
    "this picture shows a {colour} {shape}",
    "{colour} {shape} on a {background} background",
    "a {size} {shape}, painted {colour}",
    "there is one {shape} and its colour is {colour}",
    "{size} {colour} {shape} with a {background} backdrop",
    "a {size} {shape} in {colour} on a {background} background",
)
SHOP_WORDS = tuple(
    "sale free shipping cheap discount wallpaper hd download gift print poster decor "  # noqa: SIM905
    "vintage style fashion new best price buy now deal shop offer clipart vector icon logo sticker banner "
    "template design 4k 2024 100% $9.99 50%off".split()
)
SEPARATORS = (" ", ", ", " | ", " #", " / ", " - ", " ★ ")
FILE_NAMES = (
    "IMG_{n:05d} ({k}).JPG",
    "DSC-{n:05d}_{k}@2x~final!!.png",
    "https://cdn{k}.example/i/{n:x}?w=640&h=480#{k}",
    "{colour}_{shape}-{n:05d}_({k}).jpg",
)
STUBS = ("a", "photo of", "image", "the")
_CLASS_WORD = re.compile(r"\b(" + "|".join((*COLOURS, *SHAPES)) + r")\b")
_TRAIN, _TEST = 0, 1


@dataclass(frozen=True)
class Scene:
    """Everything that is drawn; the same scene always renders to the same pixels.

    tint: RGB that the shape is filled with: its colour, as the light happens to be. x, y: centre of the shape, as
    fractions of the width and the height. size: diameter of its circumscribed circle, as a fraction of the shorter
    side. angle: radians.
    """

    shape: str
    colour: str
    tint: tuple[int, int, int]
    x: float
    y: float
    size: float
    angle: float
    background: str
    background_seed: int
    width: int
    height: int

    @property
    def label(self) -> str:
        """The class name, `red circle`."""
        return f"{self.colour} {self.shape}"

    @property
    def size_word(self) -> str:
        """How a caption calls the size."""
        return "small" if self.size < 0.5 else "large" if self.size > 0.68 else "medium"


def make_demo(folder: Path, rows: int = 3000, test_rows: int = 600, seed: int = 0) -> DemoFiles:
    """Write the demo into `folder`, or reuse the one of the same arguments that is there; see `files.build`."""

    def write(draft: Path) -> None:
        write_train(draft, rows, seed)
        _write_test(draft, test_rows, seed)

    return build(folder, {"version": VERSION, "rows": rows, "test_rows": test_rows, "seed": seed}, write, ["images"])


def write_train(folder: Path, rows: int, seed: int) -> None:
    """The training rows, their images and what is wrong with them, below `folder`."""

    def row(number: int, rng: Rng) -> tuple[Line, Line]:
        scene = draw_scene(pick(rng, CLASSES), rng)
        text, caption_defects = web_caption(scene, rng)
        image, image_defects = web_image(render(scene), rng)
        name = _save(image, folder, f"images/train/{number:06d}", rng, noisy="noisy" in image_defects)
        return {"text": text, "images": [name]}, {"label": scene.label, "defects": caption_defects + image_defects}

    (folder / "images" / "train").mkdir(parents=True)
    write_rows(folder, rows, (seed, _TRAIN), row, "train.jsonl", "truth.jsonl")


def _write_test(folder: Path, rows: int, seed: int) -> None:
    def row(number: int, rng: Rng) -> tuple[Line]:
        scene = draw_scene(CLASSES[number % len(CLASSES)], rng)
        text = clean_caption(scene, rng)
        name = _save(render(scene), folder, f"images/test/{number:06d}", rng, noisy=False)
        return ({"text": text, "images": [name], "label": scene.label},)

    (folder / "images" / "test").mkdir(parents=True)
    write_rows(folder, rows, (seed, _TEST), row, "test.jsonl")


def draw_scene(label: str, rng: Rng) -> Scene:
    """A random scene of the class."""
    colour, shape = label.split()
    red, green, blue = (int(channel + rng.integers(-35, 36)) for channel in COLOURS[colour])
    return Scene(
        shape=shape,
        colour=colour,
        tint=(red, green, blue),
        x=float(rng.uniform(0.3, 0.7)),
        y=float(rng.uniform(0.3, 0.7)),
        size=float(rng.uniform(0.35, 0.8)),
        angle=float(rng.uniform(0, 2 * math.pi)),
        background=pick(rng, BACKGROUNDS),
        background_seed=int(rng.integers(2**31)),
        width=int(rng.integers(28, 41)),
        height=int(rng.integers(28, 41)),
    )


def render(scene: Scene) -> Image.Image:
    """The scene as an RGB image of its width and height."""
    rng = np.random.default_rng(scene.background_seed)
    image = Image.fromarray(_background(scene, rng))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 5))):  # distractor lines
        ends = rng.uniform(0, 1, 4) * (scene.width, scene.height, scene.width, scene.height)
        red, green, blue = (int(channel) for channel in rng.integers(40, 216, 3))
        draw.line([float(end) for end in ends], fill=(red, green, blue), width=1)
    mask = Image.new("L", (scene.width * 3, scene.height * 3))  # three times as large: smooth edges
    ImageDraw.Draw(mask).polygon([(3 * x, 3 * y) for x, y in outline(scene)], fill=255)
    image.paste(scene.tint, mask=mask.resize(image.size, Image.Resampling.BOX))
    return image


def outline(scene: Scene) -> list[tuple[float, float]]:
    """The corners of the shape, in pixels of the scene."""
    corners = {"circle": 24, "square": 4, "triangle": 3, "star": 10}[scene.shape]
    radius = scene.size * min(scene.width, scene.height) / 2
    points = []
    for corner in range(corners):
        reach = radius * (0.4 if scene.shape == "star" and corner % 2 else 1.0)
        turn = scene.angle + 2 * math.pi * corner / corners
        points.append((scene.x * scene.width + reach * math.cos(turn), scene.y * scene.height + reach * math.sin(turn)))
    return points


def _background(scene: Scene, rng: Rng) -> NDArray[np.uint8]:
    """Greyish pixels, (height, width, 3): noise of the scene's kind over a slightly tinted grey."""
    grey = rng.uniform(70, 190) + rng.uniform(-12, 12, 3)
    turn = rng.uniform(0, 2 * math.pi)
    shape = (scene.height, scene.width)
    along = np.arange(scene.width) * math.cos(turn) + np.arange(scene.height)[:, None] * math.sin(turn)
    if scene.background == "noisy":
        pattern = rng.normal(0, 25, shape)
    elif scene.background == "striped":
        pattern = 28 * np.sin(along * rng.uniform(0.5, 1.4)) + rng.normal(0, 6, shape)
    else:
        pattern = (along - along.mean()) * rng.uniform(1.5, 3.0) + rng.normal(0, 6, shape)
    pixels: NDArray[np.uint8] = np.clip(grey + pattern[..., None], 0, 255).astype(np.uint8)
    return pixels


def clean_caption(scene: Scene, rng: Rng, label: str | None = None) -> str:
    """A caption that names the scene's class, or the class `label` in its place."""
    colour, shape = (label or scene.label).split()
    template = pick(rng, TEMPLATES)
    return template.format(colour=colour, shape=shape, size=scene.size_word, background=scene.background)


def web_caption(scene: Scene, rng: Rng) -> tuple[str, list[str]]:
    """A caption as the web has it, and its defects in order of application."""
    defects = drawn(CAPTION_DEFECTS, rng)
    label = scene.label
    if "mismatched" in defects:
        label = pick(rng, [other for other in CLASSES if other != scene.label])
    text = file_name(label, rng) if "file_name" in defects else clean_caption(scene, rng, label)
    if "truncated" in defects:
        text = truncated(text, rng)
    if "repeated" in defects:
        text = repeated(text, rng)
    if "spammed" in defects:
        text = spammed(text, rng)
    return text, defects


def file_name(label: str, rng: Rng) -> str:
    """A file name or URL; one of the four kinds holds the class."""
    colour, shape = label.split()
    number, copy = int(rng.integers(100_000)), int(rng.integers(1, 10))
    return pick(rng, FILE_NAMES).format(colour=colour, shape=shape, n=number, k=copy)


def truncated(text: str, rng: Rng) -> str:
    """The text up to its first class word, or a stub if that leaves nothing; half of a text without one."""
    found = _CLASS_WORD.search(text)
    return text[: found.start() if found else len(text) // 2].rstrip() or pick(rng, STUBS)


def repeated(text: str, rng: Rng) -> str:
    """Many times one phrase: the text (40 %), the name of any class (30 %) or a shop word (30 %)."""
    kind = rng.random()
    if kind < 0.4:
        return " ".join([text] * int(rng.integers(3, 7)))
    phrase = pick(rng, CLASSES) if kind < 0.7 else pick(rng, SHOP_WORDS)
    return " ".join([phrase] * int(rng.integers(8, 17)))


def spammed(text: str, rng: Rng) -> str:
    """Shop keywords, a third of them class words; the text is lost (70 %) or stands before or behind them."""
    separator = pick(rng, SEPARATORS)
    class_words = (*COLOURS, *SHAPES)
    words = [pick(rng, class_words if rng.random() < 1 / 3 else SHOP_WORDS) for _ in range(rng.integers(8, 21))]
    place = rng.random()
    if place < 0.15:
        words.insert(0, text)
    elif place < 0.3:
        words.append(text)
    return separator.join(words)


def web_image(image: Image.Image, rng: Rng) -> tuple[Image.Image, list[str]]:
    """The image as the web has it, and its defects in order of application."""
    defects = drawn(IMAGE_DEFECTS, rng)
    if "blurred" in defects:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(2.5, 4.5))))
    if "tiny" in defects:
        image = image.resize((int(rng.integers(8, 13)), int(rng.integers(8, 13))), Image.Resampling.BOX)
    if "stretched" in defects:
        image = stretched(image, rng)
    if "noisy" in defects:
        noise = rng.normal(0, 45, (image.height, image.width, 3))
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    return image, defects


def stretched(image: Image.Image, rng: Rng) -> Image.Image:
    """The image pulled to a long side of 3–6 times the short one, wide or tall, of about the same area."""
    ratio = float(rng.uniform(3.2, 5.8))  # the rounding below moves it by 0.17 at most
    short = round(math.sqrt(image.width * image.height / ratio))
    long = round(short * ratio)
    return image.resize((long, short) if rng.random() < 0.5 else (short, long), Image.Resampling.BILINEAR)


def _save(image: Image.Image, folder: Path, stem: str, rng: Rng, noisy: bool) -> str:
    """Write the image as PNG (three in ten) or JPEG; a noisy one as a coarse JPEG. Its path in the folder."""
    is_png = rng.random() < 0.3 and not noisy
    quality = int(rng.integers(10, 26) if noisy else rng.integers(80, 96))
    content = io.BytesIO()
    image.save(content, format="PNG" if is_png else "JPEG", quality=quality)
    name = f"{stem}.{'png' if is_png else 'jpg'}"
    (folder / name).write_bytes(content.getvalue())
    return name
