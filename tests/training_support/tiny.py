"""A tiny conditional UNet as a family, its recipe, and what the tests do to its students."""

import copy
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from tcd_core import FlowSchedule, VPSchedule
from training.draws import WHOLE, epoch_rows
from training.loop import LoopSettings, train
from training.objective import TrajectoryDistillation
from training.recipe import Recipe, build, replaced

WIDTH, TOKENS, ROWS, CLASSES, SIDE = 32, 2, 37, 3, 4
LORA_TARGETS = ["to_q", "to_v", "to_out.0", "conv1", "time_emb_proj", "ff.net.2"]
RANK, ALPHA = 4, 6.0


def tiny_unet(seed: int = 0) -> UNet2DConditionModel:
    """One level, 32 channels, cross-attention; some 200,000 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet2DConditionModel(
            sample_size=SIDE,
            in_channels=1,
            out_channels=1,
            block_out_channels=(WIDTH,),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            mid_block_type=None,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            norm_num_groups=8,
        )
    return network.eval()


class TinyFamily:
    """Random pictures of three classes for the tiny UNet.

    Attributes:
        calls: (x, times, output) of each evaluation of the network, while a list; None keeps none.
    """

    architecture, base_model, resolution, no_label = "tiny/lora", "tiny", SIDE, CLASSES
    lora_targets = LORA_TARGETS

    def __init__(self, prediction: str = "epsilon", schedule=None, seed: int = 0):
        default = FlowSchedule() if prediction == "flow" else VPSchedule.scaled_linear()
        self.prediction, self.schedule = prediction, schedule or default
        self.network = tiny_unet(seed)
        generator = torch.Generator().manual_seed(seed)
        self.pictures = torch.randn(ROWS, 1, SIDE, SIDE, generator=generator).clamp(-1, 1)
        self.labels = torch.randint(CLASSES, (ROWS,), generator=generator)
        self.tokens = torch.randn(CLASSES + 1, TOKENS, WIDTH, generator=generator)
        self.calls: list | None = None

    def output(self, network: nn.Module, x: Tensor, times: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        output = network(x, times * self.time_scale, return_dict=False, **condition)[0]
        if self.calls is not None:
            self.calls.append((x.detach(), times.detach(), output.detach()))
        return output

    @property
    def time_scale(self) -> float:
        return 1000.0 if isinstance(self.schedule, FlowSchedule) else 1.0

    def data(self, step: int, count: int, seed: int, stream: str, part: slice = WHOLE) -> tuple:
        rows = epoch_rows(step, count, ROWS, seed, stream)[part]
        labels = self.labels[rows]
        return rows, self.pictures[rows], self.condition(labels), self.condition(torch.full_like(labels, CLASSES))

    def condition(self, labels: Tensor) -> dict[str, Tensor]:
        return {"encoder_hidden_states": self.tokens[labels]}


_SMALL = build(
    {
        "student": {"rank": RANK, "alpha": ALPHA},
        "training": {"steps": 6, "batch": 8, "lr": 1e-2, "warmup": 2},
        "objective": {"w_min": 0.2, "w_max": 1.5},
    }
)


def tiny_recipe(**sections) -> Recipe:
    """A recipe of six steps of eight samples, changed as `replaced` changes it."""
    return replaced(_SMALL, **sections)


def loop_settings(recipe: Recipe, **changes) -> LoopSettings:
    return LoopSettings(**(recipe.training.model_dump(exclude={"precision"}) | {"keep": 20} | changes))


def randomise(weights: Mapping[str, Tensor], scale: float = 0.05, seed: int = 1) -> None:
    """Move weights away from where they start, so that adapters do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(scale * torch.randn(weight.shape, generator=generator))


@torch.no_grad()
def tuned_copy(base: UNet2DConditionModel, weights: Mapping[str, Tensor]) -> UNet2DConditionModel:
    """The base with a student's weights: adapters merged by hand (``W + alpha/rank · B A``), or all weights set."""
    network = copy.deepcopy(base).requires_grad_(False)
    for name, down in weights.items():
        path, part, _ = name.removeprefix("network.").partition(".lora_A.")
        if part:
            up = weights[name.replace(".lora_A.", ".lora_B.")]
            module = network.get_submodule(path)
            module.weight += ALPHA / RANK * (up.flatten(1) @ down.flatten(1)).view_as(module.weight)
        elif name.startswith("network.") and ".lora_B." not in name:
            network.get_parameter(path).copy_(down)
    return network


def fresh_accelerator(**options) -> Accelerator:
    """An Accelerator on the CPU, whatever earlier tests have set its process-wide state to."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True, **options)


def states_of(task) -> dict[str, Tensor]:
    """All that training changes in a task, by name: weights and their averages."""
    averages = {"saved": task.saved, "target": getattr(task, "target_ema", None)}
    found = {name: p.detach().clone() for name, p in task.trainable().items()}
    for kind, average in averages.items():
        if average is not None:
            found |= {f"{kind}: {name}": weight.clone() for name, weight in average.weights.items()}
    return found


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names whose tensors differ by a bit, or that only one has."""
    return [name for name in a.keys() | b.keys() if name not in a or name not in b or not torch.equal(a[name], b[name])]


def tiny_task(prediction="epsilon", schedule=None, scale=0.2, **sections):
    """(a task whose student, EMA target and teacher all differ, its base network)."""
    family = TinyFamily(prediction, schedule)
    base = copy.deepcopy(family.network)
    task = TrajectoryDistillation(family, tiny_recipe(**sections))
    randomise(task.trainable(), scale)
    if task.target_ema:
        randomise(task.target_ema.weights, scale, seed=2)
    return task, base


def evaluations(task, batch):
    """(losses, the network's evaluations as (x, times, output))."""
    task.family.calls = []
    losses = task(batch)
    calls, task.family.calls = task.family.calls, None
    return losses.detach(), calls


def distilled(folder, recipe=None, stop=None, change=None, **settings):
    """(losses, all that was trained) of a tiny distillation; ``change(task)`` may tamper with it first."""
    recipe = recipe or tiny_recipe()
    task = TrajectoryDistillation(TinyFamily(), recipe)
    if change:
        change(task)
    curve = train(task, loop_settings(recipe, **settings), fresh_accelerator(), folder, "tcd", stop)
    return curve.loss, states_of(task)
