"""Memory that is worked out is what lives: against autograd's own saved tensors, and against the CPU's allocator."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.profiler import ProfilerActivity, profile
from training_support.pretrained import small_recipe
from training_support.tiny import fresh_accelerator

from tcd_core import VPSchedule
from training import families, timed_step
from training.data.buckets import Size
from training.families.encoders import Encoders
from training.families.latent_diffusion import DTYPES, LatentDiffusionFamily, Spec
from training.live_tensors import LiveTensors
from training.memory_arithmetic import drawing_need, encoding_needs, step_bytes
from training.objective import TrajectoryDistillation
from training.random_data import RandomData
from training.recipe import build, replaced


class SmallFamily(LatentDiffusionFamily):
    """Stable Diffusion's kind of UNet with two levels, from its config alone."""

    def __init__(self, recipe) -> None:
        self.recipe, self.spec, self.dtype = recipe, Spec("sd15", "", ""), DTYPES[recipe.model.dtype]
        self.found = SimpleNamespace(configs={"unet": CONFIG})
        self.schedule, self.prediction = VPSchedule.scaled_linear(), "epsilon"


CONFIG = {
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
}
SIDE = 128
RECIPE = build(
    {
        "family": "sd15",
        "baseline": False,
        "model": {"dtype": "fp32", "resolution": SIDE},
        "student": {"rank": 2, "alpha": 2.0},
        "training": {"steps": 3, "batch": 2},
    }
)


def recipe_of(**sections):
    return replaced(RECIPE, **sections)


def task_of(recipe) -> TrajectoryDistillation:
    family = SmallFamily(recipe)
    family.network = UNet2DConditionModel.from_config(CONFIG).eval()
    if recipe.memory.gradient_checkpointing:
        family.network.enable_gradient_checkpointing()
    family.data = RandomData(family, Size(SIDE, SIDE))
    return TrajectoryDistillation(family, recipe)


def worked_out(recipe, accumulated: bool = False) -> dict[str, int]:
    return step_bytes(SmallFamily(recipe), recipe, Size(SIDE, SIDE), 2, accumulated)


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Bytes of what autograd saves in the block, each storage once, but for the tensors that were there before."""

    def __init__(self, there) -> None:
        self.n_bytes, self._seen = 0, {tensor.untyped_storage().data_ptr() for tensor in there}
        super().__init__(self._count, lambda tensor: tensor)

    def _count(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.n_bytes += storage.nbytes()
        return tensor


def allocated(call) -> int:
    """The most bytes that the CPU's allocator had given out at a time in a call, of what it gave out in it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    now = peak = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def test_tensors_live_from_when_they_are_made_until_nothing_holds_them():
    layer, x = nn.Linear(8, 8, bias=False), torch.randn(16, 8)
    with LiveTensors() as live:
        y = layer(x)
        z = y.exp()  # saves its result
        assert live.n_bytes == y.nbytes + z.nbytes
        z.add_(1).t().sum()
        assert live.n_bytes == y.nbytes + z.nbytes, "what shares a storage is counted once"
        del y
        assert live.n_bytes == z.nbytes and live.peak == 2 * z.nbytes + 4


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_lives_after_a_forward_pass_is_what_autograd_saved(checkpointing):
    task = task_of(recipe_of(memory={"gradient_checkpointing": checkpointing}))
    batch = task.draw(0)
    saved = Saved([*task.parameters(), *task.buffers()])
    with saved:
        task(batch).mean()
    with LiveTensors() as live:
        loss = task(batch).mean()
        held = live.n_bytes
    assert loss.requires_grad and held == pytest.approx(saved.n_bytes, rel=0.03)


@pytest.mark.parametrize(("checkpointing", "off"), [(False, 0.01), (True, 0.1)])
def test_a_step_s_peak_is_the_allocator_s(checkpointing, off):
    """With checkpointing a little more is allocated: random states at each block."""
    recipe = recipe_of(memory={"gradient_checkpointing": checkpointing})
    task, memory = task_of(recipe), worked_out(recipe)
    batch, peak = task.draw(0), memory["activations"] + memory["gradients"]
    assert allocated(lambda: task(batch).mean().backward()) == pytest.approx(peak, rel=off)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"memory": {"gradient_checkpointing": True, "offload": True}},
        {"objective": {"form": "tcf_s_plus", "target": "ema"}, "training": {"batch": 4, "accumulation": 2}},
    ],
)
def test_without_weights_it_is_what_a_dry_run_counts(sections):
    recipe = recipe_of(**sections)
    task = task_of(recipe)
    counted = timed_step.one_step(task, fresh_accelerator()).memory
    found = worked_out(recipe, accumulated=recipe.training.accumulation > 1)
    counted["optimiser"] -= 4 * len(task.trainable())  # torch counts each tensor's steps
    assert found.pop("activations") == pytest.approx(counted.pop("activations"), rel=0.02)  # there the draws as well
    assert found == counted


def test_autocast_keeps_norms_in_float32_as_gpus_do():
    """So of bf16's activations more than half stay."""
    whole = worked_out(recipe_of(), accumulated=True)
    half = worked_out(recipe_of(model={"dtype": "bf16"}, training={"precision": "bf16"}), accumulated=True)
    assert half["frozen network"] == whole["frozen network"] / 2
    assert 0.55 < half["activations"] / whole["activations"] < 0.9


def test_moments_of_8_bits_are_two_bytes_a_value_and_more_for_small_tensors():
    found = worked_out(recipe_of(memory={"optimizer": "adamw8bit"}, student={"rank": 128}))
    assert 2 < found["optimiser"] / (found["what is trained"] / 4) < 2.6


# ---- before it, and beside it ----


@pytest.fixture
def recipe(sd15, cats):
    return small_recipe(sd15, cats)


def test_encoding_pictures_takes_what_was_worked_out(recipe):
    family, size = families.build(recipe), Size(128, 64)
    encoders, (weights, working) = Encoders(family, torch.device("cpu")), encoding_needs(family, size)["pictures"]
    pictures = torch.zeros(recipe.data.encode_batch, 3, size.height, size.width)
    encoders.latents(pictures)
    assert weights == sum(p.nbytes for p in encoders._loaded.parameters())
    found = allocated(lambda: encoders.latents(pictures)) + pictures.nbytes
    assert working == pytest.approx(found, rel=0.1)


def test_prompts_need_text_encoders_beside_the_teacher(recipe):
    family = families.build(replaced(recipe, data={"images": "", "prompts": "file"}))
    family.load()
    network = sum(p.nbytes for p in family.network.parameters())
    needs = encoding_needs(family, Size(64, 64))
    assert list(needs) == ["prompts", "captions"]
    assert needs["prompts"].weights == network + needs["captions"].weights


def test_a_large_picture_is_decoded_in_half_the_memory(recipe):
    small, large = (drawing_need(families.build(replaced(recipe, model={"resolution": n}))) for n in (768, 1024))
    assert large.weights == small.weights / 2 and large.working < small.working
