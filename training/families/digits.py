"""The embedded default's family: a small class-conditional teacher for scikit-learn's digits, trained here in a minute.

Latents are the pictures with each 2 × 2 block of pixels as four channels, (4, 4, 4): lossless, and half the work. The
network is a diffusers `UNet2DConditionModel` of the Stable Diffusion kind, small: the label as four cross-attention
tokens (attention over a single token has no gradient in q and k), widths divisible by 32 so that ComfyUI's own UNet,
with its GroupNorm(32), can hold the same weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from tcd_core import FlowSchedule, VPSchedule
from tcd_core.levels import combine
from tcd_core.predictions import from_pair

from ..disk import OutputError
from ..draws import WHOLE, epoch_rows, generator_for, rows_of
from ..jumps import stack
from ..recipe import Recipe
from ..student import Condition, Ema
from .digits_data import CLASSES, Split, load_split
from .digits_judge import DigitsJudge
from .unet import LORA_TARGETS

TOKENS = 4
LATENT = (4, 4, 4)
BLOCK = 2  # pixels on a side that become channels
NO_LABEL = CLASSES  # the token row of the unconditional teacher
_TOKEN_FILE = "label_tokens.safetensors"


class DigitsFamily:
    """A digits teacher with its data; see `Family`."""

    architecture = "digits/lora"
    base_model = "tcd_toolkit_digits"
    resolution = 8
    no_label = NO_LABEL
    latent_shape = LATENT
    lora_targets = LORA_TARGETS

    def __init__(self, recipe: Recipe) -> None:
        teacher = recipe.teacher
        self.prediction = teacher.prediction
        self.schedule = FlowSchedule() if teacher.prediction == "flow" else VPSchedule.scaled_linear()
        if teacher.zero_terminal_snr:
            self.schedule = self.schedule.zero_terminal_snr()
        self.split: Split = load_split(recipe.measure.against, recipe.measure.fold)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.network, self.tokens = make_network(teacher.width)

    def prepare(self, accelerator, origin=None) -> None:
        """Nothing: the data are scikit-learn's."""

    def output(self, network: nn.Module, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The UNet's output; a flow's times in [0, 1] become the 0 … 1000 its sinusoids are made for."""
        if isinstance(self.schedule, FlowSchedule):
            times = times * 1000.0
        return network(x, times, return_dict=False, **condition)[0]

    def data(self, step, count, seed, stream, part=WHOLE) -> tuple[Tensor, Tensor, Condition, Condition]:
        """Pictures and label tokens of a step's batch, and the tokens of no label."""
        rows = epoch_rows(step, count, len(self.split.train), seed, stream)[part]
        labels = self.split.train_labels[rows]
        return (
            rows,
            encode(self.split.train[rows]),
            self.condition(labels),
            self.condition(torch.full_like(labels, NO_LABEL)),
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 1, 8, 8) of latents (B, 4, 4, 4)."""
        return pixel_shuffle(latents, BLOCK)

    def condition(self, labels: Tensor) -> Condition:
        """The tokens of labels 0 … 9, or `NO_LABEL`; shape (B, 4, width)."""
        tokens = self.tokens(labels).unflatten(1, (TOKENS, -1))
        return {"encoder_hidden_states": tokens if self.tokens.weight.requires_grad else tokens.detach()}

    def judge(self) -> DigitsJudge:
        """Measures against the split's reference part."""
        return DigitsJudge(self.split)

    def teacher_task(self, recipe: Recipe) -> nn.Module:
        """The teacher's own training."""
        return DenoisingTask(self, recipe)

    def save(self, folder: Path) -> None:
        """Write the teacher as diffusers does, and the label tokens beside it."""
        self.network.save_pretrained(folder)
        save_file({"weight": self.tokens.weight.detach().contiguous()}, folder / _TOKEN_FILE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, and freeze it.

        Raises:
            OutputError: it is not all there, or damaged.
        """
        try:
            network = UNet2DConditionModel.from_pretrained(folder, low_cpu_mem_usage=False, local_files_only=True)
            tokens = load_file(folder / _TOKEN_FILE)["weight"]
        except Exception as error:  # each library has its own errors for damage
            raise OutputError(
                f"the teacher in {folder} is damaged or incomplete ({error}). Begin a new run, or copy the folder back"
            ) from error
        self.network = network.requires_grad_(False)
        self.tokens = nn.Embedding.from_pretrained(tokens, freeze=True)


def encode(pictures: Tensor) -> Tensor:
    """Latents (B, 4, 4, 4) of pictures (B, 1, 8, 8); inverse of `DigitsFamily.decode`."""
    return pixel_unshuffle(pictures, BLOCK)


def build(recipe: Recipe) -> DigitsFamily:
    """The family with a fresh, untrained network."""
    return DigitsFamily(recipe)


def make_network(width: int) -> tuple[UNet2DConditionModel, nn.Embedding]:
    """The UNet and the table of label tokens, fresh."""
    network = UNet2DConditionModel(
        sample_size=LATENT[-1],
        in_channels=LATENT[0],
        out_channels=LATENT[0],
        block_out_channels=(width,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=width,
        attention_head_dim=2,  # heads: diffusers' name for their number in this class
        norm_num_groups=32,
    )
    tokens = nn.Embedding(CLASSES + 1, TOKENS * width)
    return network, tokens


class DenoisingTask(nn.Module):
    """The teacher's own training: ``‖network(x_t, t, c) − output(x_0, ε)‖²``, t uniform, labels dropped at times.

    ``forward(batch) -> loss`` per sample, as the distillation's.
    """

    def __init__(self, family: DigitsFamily, recipe: Recipe) -> None:
        super().__init__()
        self.family, self.recipe = family, recipe
        self.network, self.tokens = family.network, family.tokens
        self.saved = Ema(self.trainable(), recipe.teacher.ema, warm_up=True)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def draw(self, step: int, part: slice = WHOLE) -> dict:
        teacher, schedule = self.recipe.teacher, self.family.schedule
        generator = generator_for(self.recipe.seed, "teacher", step)
        rows = epoch_rows(step, teacher.batch, len(self.family.split.train), self.recipe.seed, "teacher")
        x0, labels = encode(self.family.split.train[rows]), self.family.split.train_labels[rows].clone()
        labels[torch.rand(len(rows), generator=generator) < teacher.label_dropout] = NO_LABEL
        if isinstance(schedule, FlowSchedule):
            times = torch.rand(len(rows), generator=generator, dtype=torch.float64).tolist()
        else:
            times = torch.randint(schedule.num_train_timesteps, (len(rows),), generator=generator).tolist()
        eps = torch.randn(x0.shape, generator=generator)
        t = stack([schedule.level(t) for t in times])
        return rows_of({"x0": x0, "eps": eps, "labels": labels, "t": t, "rows": rows}, part)

    def forward(self, batch: dict) -> Tensor:
        t = batch["t"]
        x = combine(t.alpha, t.sigma, batch["x0"], batch["eps"])
        output = self.family.output(self.network, x, t.t.flatten(), self.family.condition(batch["labels"]))
        wanted = from_pair(batch["x0"], batch["eps"], t, self.family.prediction)
        return (output.float() - wanted).square().flatten(1).mean(1)

    def _apply(self, fn, recurse=True):
        self.saved.apply(fn)
        return super()._apply(fn, recurse)

    def after_step(self) -> None:
        self.saved.update(self.trainable())

    def extra_state(self) -> dict:
        return {"saved": self.saved.state_dict()}

    def load_extra_state(self, state: dict) -> None:
        self.saved.load_state_dict(state["saved"])
