"""A GPU's memory worked out without one: for a training step, and for encoding and drawing, from a model's configs.

The trainer's own code runs on tensors without values (`live_tensors`), and the bytes of those that live at its peak are
added up. So activations are what autograd saves, what gradient checkpointing keeps and computes again, and what the
operations leave to each other; norms are in float32, as autocast has them on GPUs. What comes on top of it: CUDA's own
memory (about 0.5 GB), kernels' workspaces, and what the allocator can't use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .data.buckets import Size
from .families import vae
from .families.encoders import TOKENS
from .live_tensors import LiveTensors, valueless, without_values
from .models import configs
from .objective import Batch
from .random_data import RandomData
from .recipe import Recipe, replaced
from .teacher_pairs import distillation

CAPTIONS = 32  # that go through the text encoders at a time
_BLOCK, _SMALL = 256, 4096  # bitsandbytes: values that share a float32 factor; smaller tensors have moments of 32 bits


# ---- a training step ----


def step_bytes(family, recipe: Recipe, size: Size, samples: int, accumulated: bool = True) -> dict[str, int]:
    """Bytes on the device by what they are for, at a step's peak: as `timed_step.Step.memory`. For a LoRA.

    Args:
        family: with its configs; its network is made anew, without weights, and its data are noise.
        size: of the pictures, px.
        samples: of one backward pass.
        accumulated: whether the step has passes before this one, whose gradients stand.
    """
    family.network, family.data = _skeleton(family, "unet", family.dtype), RandomData(family, size)
    if recipe.memory.gradient_checkpointing:
        family.network.enable_gradient_checkpointing()
    with torch.device("meta"):
        task = distillation(family, replaced(recipe, memory={"offload": False}))
    trained = [p.numel() for p in task.trainable().values()]
    averages = (not recipe.memory.offload) + (task.target_ema is not None)
    memory = {
        "frozen network": sum(p.nbytes for p in [*task.parameters(), *task.buffers()] if not p.requires_grad),
        "what is trained": 4 * sum(trained),
        "gradients": 4 * sum(trained),
        "optimiser": sum(_moments(count, recipe.memory.optimizer) for count in trained),
        "averages (EMA)": 4 * sum(trained) * averages,
    }
    peak = _peak(task, recipe, task.draw(0, slice(0, samples)), accumulated)
    return memory | {"activations": peak if accumulated else max(0, peak - memory["gradients"])}


def _moments(count: int, optimizer: str) -> int:
    """Bytes of AdamW's moments of a tensor with this many values."""
    if optimizer == "adamw" or count < _SMALL:
        return 8 * count
    return 2 * (count + 4 * -(-count // _BLOCK))


def _peak(task: nn.Module, recipe: Recipe, batch: Batch, accumulated: bool) -> int:
    """The most bytes that live in a forward and backward pass, beyond weights, batch, and gradients of before."""
    mode, mixed = FakeTensorMode(), recipe.training.precision != "no"
    batch = without_values(batch, mode)
    with mode:
        task._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))  # averages too
        for module in task.modules() if mixed else ():
            if isinstance(module, nn.GroupNorm | nn.LayerNorm):
                module.register_forward_pre_hook(lambda module, given: (given[0].float(), *given[1:]))
        for parameter in task.parameters() if accumulated else ():
            if parameter.requires_grad:
                parameter.grad = torch.empty(parameter.shape)
        with LiveTensors() as live:
            if recipe.memory.offload:
                task._saved_activations = live.offloading
            with torch.autocast("cpu", torch.bfloat16, mixed, cache_enabled=False):
                loss = task(batch).mean()
            loss.backward()
    return live.peak


# ---- before it, and beside it ----


class Need(NamedTuple):
    """Bytes on the device: of the weights that are loaded, and the most of what is computed with them."""

    weights: int
    working: int


def encoding_needs(family, size: Size) -> dict[str, Need]:
    """What encoding the data takes, one kind at a time: pictures, or the teacher drawing from prompts, and captions.

    Args:
        size: of the largest pictures, px.
    """
    texts, data = _text_need(family), family.recipe.data
    if data.prompts:
        network = _teacher_need(family, size)
        teacher = Need(network.weights + texts.weights, max(network.working, texts.working))
        return {"prompts": teacher, "captions": texts}
    mode = FakeTensorMode()
    loaded = _valueless(family, "vae", torch.float32, mode)
    shape = (data.encode_batch, 3, size.height, size.width)
    pictures = _need(loaded, mode, lambda: vae.encode(loaded, torch.empty(shape)))
    return {"pictures": pictures, "captions": texts}


def drawing_need(family) -> Need:
    """What decoding a validation picture takes, beside a training whose activations are gone then."""
    mode, shape = FakeTensorMode(), (1, *family.latent_shape)
    dtype = vae.decoding_dtype(torch.empty(shape, device="meta"), torch.device("cpu"))
    loaded = _valueless(family, "vae", dtype, mode)
    return _need(loaded, mode, lambda: vae.decode(loaded, torch.empty(shape)))


def _text_need(family) -> Need:
    mode, needs = FakeTensorMode(), []
    for part in family.found.configs:
        if part.startswith("text_encoder"):
            encoder = _valueless(family, part, torch.float32, mode)
            needs.append(_need(encoder, mode, lambda encoder=encoder: _embedded(encoder, family.spec.sized)))
    return Need(sum(need.weights for need in needs), max(need.working for need in needs))


def _embedded(encoder: nn.Module, sized: bool):
    return encoder(torch.zeros(CAPTIONS, TOKENS, dtype=torch.long), output_hidden_states=sized)


def _teacher_need(family, size: Size) -> Need:
    """A guided evaluation of the network."""
    mode = FakeTensorMode()
    network = _valueless(family, "unet", family.dtype, mode)
    count = 2 * family.recipe.data.encode_batch
    _, latents, condition, _ = without_values(RandomData(family, size)(0, count, 0, ""), mode)
    return _need(network, mode, lambda: family.output(network, latents, torch.zeros(count), condition))


# ---- modules without values ----


def _skeleton(family, part: str, dtype: torch.dtype) -> nn.Module:
    """A part on the meta device."""
    module = configs.skeleton(part, family.found.configs[part]).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    return module


def _valueless(family, part: str, dtype: torch.dtype, mode: FakeTensorMode) -> nn.Module:
    return valueless(_skeleton(family, part, dtype), mode)


def _need(module: nn.Module, mode: FakeTensorMode, call: Callable[[], object]) -> Need:
    """Bytes of a module, and the most that live besides in a call without gradients."""
    with mode, torch.no_grad(), LiveTensors() as live:
        call()
    return Need(sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers())), live.peak)
