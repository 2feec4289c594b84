"""Narrow models of the real families, distilled for a few steps: what the host's tests of them start from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from training_support.random_checkpoints import small_config, write_checkpoint
from training_support.tiny import fresh_accelerator

from training import families, phases
from training.checkpoint_lora import CheckpointLora, save_averaged_lora
from training.families.latent_diffusion import LatentDiffusionFamily
from training.lora_file import load_lora
from training.measure import with_target_time
from training.recipe import Recipe, load_recipe, replaced, with_form
from training.samplers import sample_sss
from training.stopping import Stop

RANK, ALPHA = 4, 6.0
CAPTIONS = ("a red picture", "Blue! 2 pictures, isn't it... naïve")
SIZES = (72, 136, 3, 5, 64, 128)  # of SDXL's pictures: height, width, top, left, target's height and width; all differ


@dataclass(frozen=True)
class Kind:
    """How a family is tested.

    Attributes:
        recipe: the shipped recipe that it is trained by.
        host: the host's name for it; ``texts``: its names for the text encoders; ``unet``: what of its description goes
            by the family's full widths.
        dtype: the checkpoint's number format.
        forms: of the students that are trained, each in a run of its own.
    """

    recipe: str
    host: str
    texts: dict[str, str]
    prediction: str
    dtype: torch.dtype
    unet: dict
    forms: tuple[str, ...] = ("tcf1",)


CLIP_L = {"text_encoder": "clip_l"}
KINDS = {
    "sd15": Kind("sd15", "SD15", CLIP_L, "EPS", torch.float16, {}, ("tcf1", "tcf_s_plus")),
    "sd21": Kind("sd21v", "SD20", {"text_encoder": "clip_h"}, "V_PREDICTION", torch.float32, {"num_head_channels": 32}),
    "sdxl": Kind("sdxl", "SDXL", CLIP_L | {"text_encoder_2": "clip_g"}, "EPS", torch.float16, {}),
}


@dataclass(frozen=True)
class Distilled:
    """A checkpoint, its family as the trainer has it, and the LoRA files made of it, by name."""

    kind: Kind
    checkpoint: Path
    family: LatentDiffusionFamily
    loras: dict[str, Path]

    def conditioning(self, pictures: int) -> dict[str, Tensor]:
        """Random texts, and SDXL's sizes: what the network is told of each picture."""
        generator = torch.Generator().manual_seed(7)
        configs = self.family.found.configs
        texts = {"encoder_hidden_states": (77, configs["unet"]["cross_attention_dim"])}
        if self.family.spec.sized:
            texts["pooled"] = (configs["text_encoder_2"]["projection_dim"],)
        drawn = {name: torch.randn(pictures, *shape, generator=generator) for name, shape in texts.items()}
        return dict(self.family.told(drawn, torch.tensor([SIZES]).repeat(pictures, 1)))

    def text_sizes(self) -> dict[str, dict[str, int]]:
        """The text encoders' sizes, by the host's names of them."""
        names = ("hidden_size", "intermediate_size", "num_attention_heads")
        configs = self.family.found.configs
        return {host: {name: configs[part][name] for name in names} for part, host in self.kind.texts.items()}

    def vae_width(self) -> int:
        """Channels of the VAE's first level."""
        return self.family.found.configs["vae"]["block_out_channels"][0]

    def latents(self, lora: str | None, noise: Tensor, steps: int, gamma: float, seed: int, told_s=True) -> Tensor:
        """Latents as the headless sampler makes them, with a LoRA file or without.

        Args:
            told_s: False leaves out TCF(S+)'s embedding of the target time.
        """
        family, condition = self.family, self.conditioning(len(noise))
        family.load()
        embedding = load_lora(family.network, self.loras[lora]).target_embedding if lora else None
        call = with_target_time(family, family.network, embedding if told_s else None)

        @torch.inference_mode()
        def network(x: Tensor, t: float, s: float) -> Tensor:
            times = torch.full((len(x),), t)
            return call(x, times, torch.full_like(times, s), condition)

        return sample_sss(network, family.prediction, family.schedule, noise, steps, gamma, seed)


def distil(name: str, folder: Path) -> Distilled:
    """Write a random checkpoint of a family and distil it, by the trainer's own functions."""
    kind, loras = KINDS[name], {}
    checkpoint = folder / f"{name}.safetensors"
    config = small_config(name, folder / f"{name}.config", **({"time_ids": 256} if name == "sdxl" else {}))
    if kind.unet:
        _set_head_width(config, kind.unet["num_head_channels"])
    write_checkpoint(checkpoint, name, config, v_prediction=kind.prediction == "V_PREDICTION", dtype=kind.dtype)
    recipe = small_recipe(kind, checkpoint, config, write_pictures(folder / "pictures"), folder / "cache")
    for form in kind.forms:
        run = folder / f"{name}_{form}"
        run.mkdir()
        family = families.build(with_form(recipe, form))
        family.prepare(fresh_accelerator(), say=lambda line: None)
        phases.run_phases(family, with_form(recipe, form), run, fresh_accelerator(), Stop(), half_precision_too)
        (loras[f"{form} fp32"],) = run.glob("tcd_*.safetensors")
        (loras[f"{form} fp16"],) = run.glob("checkpoints/tcd_*.safetensors")
    return Distilled(kind, checkpoint, family, loras)


def small_recipe(kind: Kind, checkpoint: Path, config: Path, pictures: Path, cache: Path) -> Recipe:
    """The shipped recipe, with as little training as changes every weight."""
    return replaced(
        load_recipe(kind.recipe),
        model={"path": str(checkpoint), "config": str(config), "resolution": 64, "dtype": "fp32"},
        data={"images": str(pictures), "cache": str(cache), "min_side": 32},
        student={"rank": RANK, "alpha": ALPHA, "dtype": "fp32", "ema": 0.0},
        training={"steps": 4, "batch": 2, "accumulation": 1, "lr": 1e-2, "warmup": 0, "precision": "no"},
        memory={"gradient_checkpointing": False},
    )


def write_pictures(folder: Path) -> Path:
    """Two pictures with captions."""
    folder.mkdir(exist_ok=True)
    for seed, (colour, caption) in enumerate(zip(("red", "blue"), CAPTIONS, strict=True)):
        Image.new("RGB", (80, 64), colour).save(folder / f"{seed}.png")
        (folder / f"{seed}.txt").write_text(caption, encoding="utf-8")
    return folder


@contextmanager
def half_precision_too(task, phase, folder: Path, first: int) -> Iterator[list]:
    """`run_phases`' hooks: the LoRA of the last checkpoint, in fp16."""

    def write(path: Path) -> None:
        save_averaged_lora(path, task, phases.metadata(task, phase), "fp16")

    yield [CheckpointLora(folder / "checkpoints", phase.artefact(folder).stem, write, keep=1)]


def _set_head_width(config: Path, width: int) -> None:
    file = config / "unet" / "config.json"
    unet = json.loads(file.read_text())
    heads = [channels // width for channels in unet["block_out_channels"]]
    file.write_text(json.dumps(unet | {"attention_head_dim": heads}))
