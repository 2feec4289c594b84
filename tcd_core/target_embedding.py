"""TCF(S+): the extra parameters that tell a network its target time s.

`f(x_t, t → s) = (α_s/α_t) x_t − σ_s (e^h − 1) ε_θ(x_t, t, s)` (arXiv 2402.19159, section 4.2): the network's time
embedding becomes `emb(t) + MLP(sin/cos(s))`, added after the time MLP. The MLP's last layer starts at zero, so training
starts from the teacher. Trainer and host share this module, and its tensors travel in the LoRA file.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

TARGET_EMBEDDING_PREFIX = "tcd_target_embedding."
MAX_PERIOD = 10_000.0
_NAMES = ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias")


def sinusoidal_embedding(s: Tensor, channels: int) -> Tensor:
    """`[cos(s f_0) … cos(s f_{n−1}), sin(s f_0) … sin(s f_{n−1})]`, `f_i = 10000^(−i/n)`, n = channels / 2.

    Stable Diffusion's convention: the host's `timestep_embedding`, diffusers'
    `Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)`.

    Args:
        s: times, shape (B,), in the schedule's units (0 … N−1; fractions allowed).
        channels: even width of the result.

    Returns:
        float32, shape (B, channels).

    Raises:
        ValueError: s is not one-dimensional.
    """
    if s.ndim != 1:
        raise ValueError(f"target times must have shape (B,), one time per sample; got shape {tuple(s.shape)}")
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=s.device)
    angles = s.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * index / half)[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TargetTimeEmbedding(nn.Module):
    """`linear_2(SiLU(linear_1(sinusoid(s))))`, to be added to a network's time embedding after its time MLP.

    Args:
        channels: width of the sinusoid: the network's first block width (320 for SD 1.5, SD 2.x and SDXL). Even.
        embed_dim: width of the network's time embedding (1280 for those).

    Raises:
        ValueError: a size that is not positive, or odd channels.
    """

    def __init__(self, channels: int, embed_dim: int):
        super().__init__()
        if channels < 2 or channels % 2 or embed_dim < 1:
            raise ValueError(
                f"channels must be even and positive and embed_dim positive, got channels={channels}, "
                f"embed_dim={embed_dim}; use the network's model channels and its time embedding's width"
            )
        self.channels = channels
        self.embed_dim = embed_dim
        self.linear_1 = nn.Linear(channels, embed_dim)
        self.linear_2 = nn.Linear(embed_dim, embed_dim)
        nn.init.zeros_(self.linear_2.weight)
        nn.init.zeros_(self.linear_2.bias)

    def forward(self, s: Tensor) -> Tensor:
        """Map times s, shape (B,) in the schedule's units, to float32 (B, embed_dim); the caller casts.

        The arithmetic is float32 whatever the parameters' dtype and under autocast too.
        """
        with torch.autocast(device_type=s.device.type, enabled=False):
            hidden = _linear(sinusoidal_embedding(s, self.channels), self.linear_1)
            return _linear(functional.silu(hidden), self.linear_2)

    def state_dict_for_file(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The parameters under the keys a LoRA file uses, on the CPU; `dtype` as stored unless given."""
        return {
            TARGET_EMBEDDING_PREFIX + name: tensor.detach().to(device="cpu", dtype=dtype or tensor.dtype).contiguous()
            for name, tensor in self.state_dict().items()
        }

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> "TargetTimeEmbedding":
        """Build the module from a LoRA file's tensors; others are ignored, sizes are read off the weights.

        Raises:
            ValueError: a tensor is missing, unknown, or of a shape that does not fit the others.
        """
        found = target_embedding_tensors(tensors)
        _check(found)
        embed_dim, channels = found["linear_1.weight"].shape
        module = cls(channels, embed_dim)
        module.load_state_dict({name: tensor.float() for name, tensor in found.items()})
        return module


def target_embedding_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a file's tensors that belong to the target-time embedding, prefix removed; empty when it has none."""
    prefix = TARGET_EMBEDDING_PREFIX
    return {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return functional.linear(x, layer.weight.float(), layer.bias.float())


def _check(found: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless `found` has exactly the four tensors, of shapes that fit together."""
    missing = [name for name in _NAMES if name not in found]
    unknown = sorted(set(found) - set(_NAMES))
    if missing or unknown:
        raise ValueError(
            f"the file's target-time embedding (keys {TARGET_EMBEDDING_PREFIX}*) should hold {', '.join(_NAMES)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}. "
            "Export the LoRA again, or update TCD Toolkit if the file was made by a newer version."
        )
    shapes = {name: tuple(found[name].shape) for name in _NAMES}
    first = shapes["linear_1.weight"]
    width = first[0] if first else 0
    expected = {
        "linear_1.weight": (width, first[1] if len(first) == 2 else 0),
        "linear_1.bias": (width,),
        "linear_2.weight": (width, width),
        "linear_2.bias": (width,),
    }
    if shapes != expected or first[1] < 2 or first[1] % 2:
        raise ValueError(
            f"the file's target-time embedding has shapes that do not fit together: {shapes}; expected "
            "linear_1 (embed_dim, even channels) and linear_2 (embed_dim, embed_dim) with biases (embed_dim,). "
            "The file is damaged or not a TCF(S+) LoRA: export it again."
        )
