"""What the embedded families share: a small teacher that is trained here, on data that need no download.

The network is a diffusers `UNet2DConditionModel` of the Stable Diffusion kind; what it is told goes through
cross-attention, as states that a small module of the family's own makes of labels and that is trained with it. Latents
are the pictures with blocks of pixels as channels: lossless, and less work.
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
from .unet import LORA_TARGETS


class EmbeddedFamily:
    """The shared part of a `Family` that trains its own teacher.

    Attributes:
        block: pixels on a side that become channels.
        tokens: the module that makes the states of labels (rows of integers) that the network attends to.
        tokens_file: where its weights are kept, beside the network's.
        train, train_labels: the pictures to train on, and what they are told as.
    """

    lora_targets = LORA_TARGETS
    block: int
    no_label: int
    tokens_file: str
    train: Tensor
    train_labels: Tensor
    device = torch.device("cpu")  # where the family is measured

    def __init__(self, recipe: Recipe) -> None:
        teacher = recipe.teacher
        self.prediction = teacher.prediction
        self.schedule = FlowSchedule() if teacher.prediction == "flow" else VPSchedule.scaled_linear()
        if teacher.zero_terminal_snr:
            self.schedule = self.schedule.zero_terminal_snr()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.network, self.tokens = self.make_network(teacher.width)

    def make_network(self, width: int) -> tuple[UNet2DConditionModel, nn.Module]:
        """The UNet and the module of the states it attends to, fresh."""
        raise NotImplementedError

    def states(self, labels: Tensor) -> Tensor:
        """What the network attends to, (B, tokens, width)."""
        return self.tokens(labels)

    def prepare(self, accelerator, origin=None) -> None:
        """Nothing: the data are drawn or bundled."""

    def output(self, network: nn.Module, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The UNet's output; a flow's times in [0, 1] become the 0 … 1000 its sinusoids are made for."""
        if isinstance(self.schedule, FlowSchedule):
            times = times * 1000.0
        return network(x, times, return_dict=False, **condition)[0]

    def samples(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and labels of rows of the training data."""
        return self.encode(self.train[rows]), self.train_labels[rows]

    def data(self, step, count, seed, stream, part=WHOLE) -> tuple[Tensor, Tensor, Condition, Condition]:
        """Latents and conditions of a step's batch, and the condition of no label."""
        rows = epoch_rows(step, count, len(self.train), seed, stream)[part]
        latents, labels = self.samples(rows)
        return rows, latents, self.condition(labels), self.condition(torch.full_like(labels, self.no_label))

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of pictures; inverse of `decode`."""
        return pixel_unshuffle(pictures, self.block)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents."""
        return pixel_shuffle(latents, self.block)

    def condition(self, labels: Tensor) -> Condition:
        """What the network is told of labels; ``no_label`` in every place is the unconditional one."""
        states = self.states(labels)
        trained = any(p.requires_grad for p in self.tokens.parameters())
        return {"encoder_hidden_states": states if trained else states.detach()}

    def teacher_task(self, recipe: Recipe) -> nn.Module:
        """The teacher's own training."""
        return DenoisingTask(self, recipe)

    def save(self, folder: Path) -> None:
        """Write the teacher as diffusers does, and the module of its states beside it."""
        self.network.save_pretrained(folder)
        weights = {name: weight.detach().contiguous() for name, weight in self.tokens.state_dict().items()}
        save_file(weights, folder / self.tokens_file)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, and freeze it.

        Raises:
            OutputError: it is not all there, or damaged.
        """
        try:
            network = UNet2DConditionModel.from_pretrained(folder, low_cpu_mem_usage=False, local_files_only=True)
            self.tokens = self.tokens.cpu()
            self.tokens.load_state_dict(load_file(folder / self.tokens_file))
        except Exception as error:  # each library has its own errors for damage
            raise OutputError(
                f"the teacher in {folder} is damaged or incomplete ({error}). Begin a new run, or copy the folder back"
            ) from error
        self.network = network.requires_grad_(False)
        self.tokens.requires_grad_(False)


class DenoisingTask(nn.Module):
    """The teacher's own training: ``‖network(x_t, t, c) − output(x_0, ε)‖²``, t uniform, labels dropped at times.

    ``forward(batch) -> loss`` per sample, as the distillation's.
    """

    def __init__(self, family: EmbeddedFamily, recipe: Recipe) -> None:
        super().__init__()
        self.family, self.recipe = family, recipe
        self.network, self.tokens = family.network, family.tokens
        self.saved = Ema(self.trainable(), recipe.teacher.ema, warm_up=True)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def draw(self, step: int, part: slice = WHOLE) -> dict:
        teacher, schedule = self.recipe.teacher, self.family.schedule
        generator = generator_for(self.recipe.seed, "teacher", step)
        rows = epoch_rows(step, teacher.batch, len(self.family.train), self.recipe.seed, "teacher")
        x0, labels = self.family.samples(rows)
        labels = labels.clone()
        labels[torch.rand(len(rows), generator=generator) < teacher.label_dropout] = self.family.no_label
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
