"""TCF(S+) in the host: each step's target time s is added to the network's time embedding.

The trainer adds its embedding of s after the time MLP, which is where the host's UNet calls its emb patches, so both
compute the same network. The sampler of this pack writes s (the schedule's time units, 0 … N−1) into
`transformer_options["tcd_target_time"]` at each step; under any other sampler s is the time of that step's next sigma.
"""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..tcd_core.target_embedding import TargetTimeEmbedding, target_embedding_tensors

TARGET_TIME = "tcd_target_time"


class TargetTimePatch:
    """`emb + strength · embedding(s)`: an emb patch for the host's UNet.

    Moving makes a new patch and leaves this one's weights where they are: the host shares patches between clones of a
    model, and asks for the model's dtype too, which float32 arithmetic ignores.

    Args:
        embedding: the file's module, float32.
        strength: factor on the embedding, as on the LoRA's weights.
        time_of: the time (schedule's units) of a sigma > 0, for samplers that do not tell s.
    """

    def __init__(self, embedding: TargetTimeEmbedding, strength: float, time_of: Callable[[float], float]):
        self.embedding = embedding.requires_grad_(False)
        self.strength = strength
        self.time_of = time_of

    def __call__(self, emb: Tensor, model_channels: int, transformer_options: Mapping) -> Tensor:
        """Add to the time embedding, shape (B, embed_dim), in float32; the result has `emb`'s dtype.

        Raises:
            RuntimeError: the sampler tells neither s nor its sigmas.
        """
        self.embedding = _on(self.embedding, emb.device)
        s = torch.full((1,), target_time(transformer_options, self.time_of), dtype=torch.float32, device=emb.device)
        return (emb.float() + self.strength * self.embedding(s)).to(emb.dtype)

    def to(self, device_or_dtype: torch.device | torch.dtype | str) -> "TargetTimePatch":
        """A patch whose weights lie on the device; itself for a dtype, or where they lie there already."""
        if isinstance(device_or_dtype, torch.dtype):
            return self
        embedding = _on(self.embedding, torch.device(device_or_dtype))
        return self if embedding is self.embedding else TargetTimePatch(embedding, self.strength, self.time_of)

    def __deepcopy__(self, memo: dict) -> "TargetTimePatch":
        """Model clones deep-copy their patches: share the weights, which nothing writes to."""
        return TargetTimePatch(self.embedding, self.strength, self.time_of)


def target_time(transformer_options: Mapping, time_of: Callable[[float], float]) -> float:
    """s of this evaluation: what the sampler wrote, else the time of the next sigma below the current one.

    The sigma 0 has time 0. An evaluation at or below the last sigma (a corrector's) aims at its own time.

    Raises:
        RuntimeError: the sampler wrote neither s nor its sigmas.
    """
    if transformer_options.get(TARGET_TIME) is not None:
        return float(transformer_options[TARGET_TIME])
    sigmas, current = transformer_options.get("sample_sigmas"), transformer_options.get("sigmas")
    if sigmas is None or current is None:
        raise RuntimeError(
            "This TCF(S+) LoRA has to be told each step's target time, and this sampler gives neither that nor its "
            "sigmas. Use sampler tcd (or a TCD Toolkit node), or one of ComfyUI's own samplers."
        )
    now = float(current.flatten()[0])
    below = [sigma for sigma in sigmas.tolist() if sigma < now * (1 - 1e-6)]
    sigma = max(below, default=now)
    return time_of(sigma) if sigma > 0 else 0.0


def add_target_patch(model, tensors: Mapping[str, Tensor], strength: float, time_of: Callable[[float], float]) -> None:
    """Give the model (a clone of the caller's own) the embedding that a TCF(S+) file holds; nothing without one.

    Raises:
        ValueError: the tensors are damaged, or the model's time embedding has no place for them.
    """
    if target_embedding_tensors(tensors):
        embedding = TargetTimeEmbedding.from_state_dict(tensors)
        check_model(model, embedding)
        model.set_model_emb_patch(TargetTimePatch(embedding, strength, time_of))


def check_model(model, embedding: TargetTimeEmbedding) -> None:
    """Raise ValueError unless the model is a UNet whose time embedding has the file's widths."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    network = model.get_model_object("diffusion_model")
    if not isinstance(network, UNetModel):
        raise ValueError(
            "this is a TCF(S+) LoRA, which tells a UNet's time embedding the target time; this model "
            f"({type(network).__name__}) is no UNet of ComfyUI's. Use it with the SD 1.5, SD 2.x or SDXL model it was "
            "made for."
        )
    widths = network.model_channels, network.time_embed[-1].out_features
    if widths != (embedding.channels, embedding.embed_dim):
        raise ValueError(
            f"this TCF(S+) LoRA's target-time embedding is {embedding.channels} to {embedding.embed_dim} wide, this "
            f"model's time embedding {widths[0]} to {widths[1]}: it was made for another model"
        )


def _on(embedding: TargetTimeEmbedding, device: torch.device) -> TargetTimeEmbedding:
    """The embedding on the device: itself if it lies there, else a copy."""
    place = embedding.linear_1.weight.device
    same = place.type == device.type and (device.index is None or place.index in (None, device.index))
    return embedding if same else copy.deepcopy(embedding).to(device)
