"""VideoCrafter2's own layout: a tiny model under its names becomes a pipeline that makes the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.models.embeddings import get_timestep_embedding
from safetensors.torch import load_file, save_file

from engine.base.errors import StudyError
from engine.tasks.t2v.videocrafter import convert, is_videocrafter
from tests.engine.tasks.t2v.pipelines import LAYERS, tokenizer

torch.set_num_threads(1)
LAYERS_EACH, WIDTH, FPS = 1, 32, 16
NAMES = [
    (r"^time_embedding\.linear_1", "time_embed.0"), (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^conv_in", "input_blocks.0.0"), (r"^transformer_in", "init_attn.0"), (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
]  # fmt: skip
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
LINES = r"(transformer_in|init_attn\.0)\.proj_(in|out)\.weight"
VAE = [
    ("down_blocks", "down"), ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
    ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
    ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"), ("mid_block.attentions.0.to_", "mid.attn_1."),
    ("downsamplers.0", "downsample"), ("upsamplers.0", "upsample"), ("resnets", "block"),
    ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"),
]  # fmt: skip
TEXT = [
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"), ("final_layer_norm", "ln_final"),
    ("encoder.layers", "transformer.resblocks"), ("layer_norm", "ln_"), ("self_attn.", "attn."), ("fc1", "c_fc"),
    ("fc2", "c_proj"),
]  # fmt: skip


def theirs(name: str, attends: tuple[bool, ...]) -> str:
    """A UNet's tensor by VideoCrafter's name. attends: levels that have attention, from the largest on."""
    levels, each = len(attends), LAYERS_EACH + 1
    if match := re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name):
        way, level, part, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        start = 1 + level * each if way == "down" else level * each
        block = "input_blocks" if way == "down" else "output_blocks"
        if part == "downsamplers":
            return f"{block}.{start + LAYERS_EACH}.0.{rest.replace('conv', 'op')}"
        if part == "upsamplers":
            at = 3 if attends[levels - 1 - level] else 1
            return f"{block}.{start + LAYERS_EACH}.{at}.{rest}"
        return f"{block}.{start + layer}.{_inner(part, rest)}"
    if match := re.match(r"mid_block\.(\w+)\.(\d)\.(.*)", name):
        place, _, rest = _inner(match[1], match[3]).partition(".")
        return f"middle_block.{3 if match[2] == '1' else place}.{rest}"
    for pattern, new in NAMES:
        name = re.sub(pattern, new, name)
    return name


def _inner(part: str, rest: str) -> str:
    if part == "resnets":
        head, _, tail = rest.partition(".")
        return f"0.{RESNET[head]}.{tail}"
    return {"temp_convs": "0.temopral_conv", "attentions": "1", "temp_attentions": "2"}[part] + f".{rest}"


def vae_name(name: str, levels: int) -> str:
    """An autoencoder's tensor by its name in the file."""
    name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
    for new, old in VAE:
        name = name.replace(new, old)
    return name


def text_tensors(text: Any) -> dict[str, torch.Tensor]:
    """A text encoder's tensors as open_clip names them, with one more layer that is not heard."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in text.state_dict().items():
        for new, old in TEXT:
            name = name.replace(new, old)
        if match := re.match(r"(.*\.attn\.)[qkv]_proj\.(weight|bias)", name):
            kind = match[2]
            stacked = [text.state_dict()[re.sub("[qkv]_proj", f"{one}_proj", _own(match[1], kind))] for one in "qkv"]
            found[f"{match[1]}in_proj_{kind}"] = torch.cat(stacked)
        else:
            found[name] = tensor
    last = {
        n.replace("resblocks.0", "resblocks.1"): torch.randn_like(t) for n, t in found.items() if "resblocks.0" in n
    }
    return {**found, **last, "text_projection": torch.zeros(4, 4), "logit_scale": torch.zeros(())}


def _own(start: str, kind: str) -> str:
    return start.replace("transformer.resblocks", "encoder.layers").replace("attn.", "self_attn.") + f"q_proj.{kind}"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any, Any, Any]:
    """The weights in one file, a tokenizer's folder, and the models themselves."""
    folder = tmp_path_factory.mktemp("videocrafter")
    torch.manual_seed(0)
    made: Any = diffusers
    unet = made.UNet3DConditionModel(
        block_out_channels=(WIDTH, WIDTH), layers_per_block=LAYERS_EACH, norm_num_groups=32, cross_attention_dim=16,
        attention_head_dim=8, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    ).eval()  # fmt: skip
    vae = made.AutoencoderKL(
        block_out_channels=(WIDTH, WIDTH), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=32,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1,
    ).eval()  # fmt: skip
    config = transformers.CLIPTextConfig(
        **{**LAYERS, "num_attention_heads": 1}, num_hidden_layers=1, max_position_embeddings=16, hidden_act="gelu",
        eos_token_id=99, bos_token_id=98, pad_token_id=0,
    )  # fmt: skip
    text = transformers.CLIPTextModel(config).eval()
    tensors = {f"model.diffusion_model.{theirs(n, (True, False))}": t for n, t in unet.state_dict().items()}
    tensors = {n: t[..., None] if re.search(LINES, n) else t for n, t in tensors.items()}  # convolutions there
    wide = 4 * WIDTH
    fps = {"0.weight": (wide, WIDTH), "0.bias": (wide,), "2.weight": (wide, wide), "2.bias": (wide,)}
    told = {f"model.diffusion_model.fps_embedding.{n}": torch.randn(shape) / 4 for n, shape in fps.items()}
    seen = {f"first_stage_model.{vae_name(n, 2)}": t for n, t in vae.state_dict().items()}
    seen = {n: t[..., None, None] if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", n) else t for n, t in seen.items()}
    heard = {f"cond_stage_model.model.{n}": t for n, t in text_tensors(text).items()}
    whole = {**tensors, **told, **seen, **heard, "betas": torch.zeros(3)}
    save_file({n: t.contiguous().clone() for n, t in whole.items()}, folder / "model.safetensors")
    tokenizer(folder / "words").save_pretrained(folder / "words")
    with torch.no_grad():  # what the fps say is a part of the time's bias
        one, two = (torch.nn.Linear(*reversed(fps[f"{n}.weight"])) for n in (0, 2))
        for layer, n in ((one, 0), (two, 2)):
            layer.weight.copy_(told[f"model.diffusion_model.fps_embedding.{n}.weight"])
            layer.bias.copy_(told[f"model.diffusion_model.fps_embedding.{n}.bias"])
        at = get_timestep_embedding(torch.tensor([FPS]), WIDTH, flip_sin_to_cos=True, downscale_freq_shift=0)
        unet.time_embedding.linear_2.bias.add_(two(torch.nn.functional.silu(one(at)))[0])
    return folder, folder / "words", unet, vae, text


def test_it_becomes_a_pipeline_that_makes_the_same(released: Any, tmp_path: Path) -> None:
    source, words, unet, vae, text = released
    assert is_videocrafter(source)
    found = convert(source, tmp_path / "made", words, FPS)
    held = load_file(source / "model.safetensors")
    assert found.expected == len(held) and not found.missing and "of the last layer of text" in found.line
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "made")
    noisy, time, said = torch.randn(1, 4, 3, 8, 8), torch.tensor([400]), torch.randn(1, 5, 16)
    ids, pixels = torch.tensor([[98, 7, 8, 99, 0, 0]]), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(pipe.unet(noisy, time, said).sample, unet(noisy, time, said).sample)
        torch.testing.assert_close(
            pipe.vae(pixels, sample_posterior=False).sample, vae(pixels, sample_posterior=False).sample
        )
        torch.testing.assert_close(pipe.text_encoder(ids).last_hidden_state, text(ids).last_hidden_state)
    assert pipe.tokenizer.pad_token_id == 0


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("unet", "the weights are of no UNet3DConditionModel: missing: "),
        ("vae", "has no tensors of first_stage_model."),
        ("more", "has tensors of no VideoCrafter2: other.weight"),
        ("tokenizer", "holds no tokenizer; give --tokenizer"),
        ("pickled", "pickled weights are never opened"),
    ],
)
def test_what_is_no_videocrafter_is_refused_by_name(released: Any, tmp_path: Path, spoil: str, told: str) -> None:
    source, words = released[:2]
    folder, tensors = tmp_path / "from", load_file(source / "model.safetensors")
    folder.mkdir()
    if spoil == "unet":
        del tensors["model.diffusion_model.middle_block.3.out_layers.3.bias"]
    tensors = {n: t for n, t in tensors.items() if spoil != "vae" or not n.startswith("first_stage")}
    if spoil == "more":
        tensors["other.weight"] = torch.zeros(2)
    save_file(tensors, folder / ("model.ckpt" if spoil == "pickled" else "model.safetensors"))
    with pytest.raises(StudyError, match=told):
        assert is_videocrafter(folder)
        convert(folder, tmp_path / "made", None if spoil == "tokenizer" else words, FPS)
    assert not (tmp_path / "made").exists()
