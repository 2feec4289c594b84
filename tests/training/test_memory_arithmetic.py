"""Memory that is worked out is what lives: against autograd's own saved tensors, and against the CPU's allocator."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from training_support.pretrained import RANK, SIDE, small_recipe
from training_support.tiny import fresh_accelerator

from training import families, timed_step
from training.data.buckets import Size
from training.families import vae
from training.families.encoders import Encoders
from training.live_tensors import LiveTensors
from training.memory_arithmetic import drawing_need, encoding_needs, step_bytes
from training.objective import TrajectoryDistillation
from training.random_data import RandomData
from training.recipe import replaced


@pytest.fixture
def recipe(sd15, cats):
    """Of a model of some eight million parameters."""
    return small_recipe(sd15, cats)


def task_of(recipe, side: int = SIDE) -> TrajectoryDistillation:
    family = families.build(recipe)
    family.load()
    family.data = RandomData(family, Size(side, side))
    return TrajectoryDistillation(family, recipe)


def worked_out(recipe, side: int = SIDE, samples: int = 2, accumulated: bool = False) -> dict[str, int]:
    return step_bytes(families.build(recipe), recipe, Size(side, side), samples, accumulated)


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
def test_what_lives_after_a_forward_pass_is_what_autograd_saved(recipe, checkpointing):
    recipe = replaced(recipe, memory={"gradient_checkpointing": checkpointing})
    task = task_of(recipe)
    batch = task.draw(0)
    saved = Saved([*task.parameters(), *task.buffers()])
    with saved:
        task(batch).mean()
    with LiveTensors() as live:
        loss = task(batch).mean()
        held = live.n_bytes
    assert loss.requires_grad and held == pytest.approx(saved.n_bytes, rel=0.03)


@pytest.mark.parametrize(("checkpointing", "off"), [(False, 0.01), (True, 0.1)])
def test_a_step_s_peak_is_the_allocator_s(recipe, checkpointing, off):
    """With checkpointing a little more is allocated: random states at each block."""
    recipe = replaced(recipe, memory={"gradient_checkpointing": checkpointing})
    task, side = task_of(recipe, 2 * SIDE), 2 * SIDE
    batch = task.draw(0)
    memory = worked_out(recipe, side)
    peak = memory["activations"] + memory["gradients"]
    assert allocated(lambda: task(batch).mean().backward()) == pytest.approx(peak, rel=off)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"memory": {"gradient_checkpointing": True, "offload": True}},
        {"objective": {"form": "tcf_s_plus", "target": "ema"}, "training": {"batch": 4, "accumulation": 2}},
    ],
)
def test_without_weights_it_is_what_a_dry_run_counts(recipe, sections):
    recipe = replaced(recipe, **sections)
    counted = timed_step.one_step(task_of(recipe), fresh_accelerator()).memory
    found = worked_out(recipe, accumulated=recipe.training.accumulation > 1)
    counted["optimiser"] -= 4 * sum(1 for _ in task_of(recipe).trainable())  # torch counts each tensor's steps
    assert found.pop("activations") == pytest.approx(counted.pop("activations"), rel=0.02)  # there the draws as well
    assert found == counted


def test_autocast_keeps_norms_in_float32_as_gpus_do(recipe):
    """So the halves of bf16 are more than half."""
    base = replaced(recipe, model={"dtype": "bf16"}, training={"precision": "bf16"})
    whole, half = worked_out(recipe, accumulated=True), worked_out(base, accumulated=True)
    assert half["frozen network"] == whole["frozen network"] / 2
    assert 0.55 < half["activations"] / whole["activations"] < 0.9


def test_moments_of_8_bits_are_two_bytes_a_value_and_more_for_small_tensors(recipe):
    found = worked_out(replaced(recipe, memory={"optimizer": "adamw8bit"}, student={"rank": 32 * RANK}))
    assert 2 < found["optimiser"] / (found["what is trained"] / 4) < 2.6


def test_encoding_pictures_takes_what_was_worked_out(recipe):
    size = Size(2 * SIDE, SIDE)
    family = families.build(recipe)
    encoders, (weights, working) = Encoders(family, torch.device("cpu")), encoding_needs(family, size)["pictures"]
    pictures = torch.zeros(recipe.data.encode_batch, 3, size.height, size.width)
    encoders.latents(pictures)
    loaded = encoders._loaded
    assert weights == sum(p.nbytes for p in loaded.parameters())
    pictures_on_the_device = pictures.nbytes
    with LiveTensors() as live:
        encoders.latents(pictures)
    assert working == pytest.approx(live.peak + pictures_on_the_device, rel=0.02)
    assert working == pytest.approx(allocated(lambda: encoders.latents(pictures)) + pictures_on_the_device, rel=0.1)


def test_prompts_need_text_encoders_beside_the_teacher(recipe):
    family = families.build(replaced(recipe, data={"images": "", "prompts": "file"}))
    family.load()
    network = sum(p.nbytes for p in family.network.parameters())
    needs = encoding_needs(family, Size(SIDE, SIDE))
    assert list(needs) == ["prompts", "captions"]
    assert needs["prompts"].weights == network + needs["captions"].weights


def test_a_large_picture_s_decoding_is_that_of_bf16_and_then_of_tiles(recipe):
    at = {side: drawing_need(families.build(replaced(recipe, model={"resolution": side}))) for side in (768, 1024, 2048)}
    assert at[1024].weights == at[768].weights / 2 == at[2048].weights
    assert at[1024].working < at[768].working
    picture = 3 * 4 * 2048**2
    assert at[2048].working < at[1024].working + 4 * picture, "a tile's, and the picture that is put together"
    assert vae.PIXELS == 1024**2
