"""What a network predicts: noise, velocity or data, and the exact conversions between them.

With ``x = alpha x_0 + sigma eps``:  ``x̂ = (x − sigma ε̂) / alpha`` and ``ε̂ = (x − alpha x̂) / sigma``.
VP velocity (arXiv 2202.00512): ``v = alpha ε − sigma x_0``.  Flow velocity: ``v = ε − x_0``. Both
are linear in (ε, x_0) and invert exactly: VP ``x̂ = alpha x − sigma v``, flow ``x̂ = x − sigma v``.
"""

from __future__ import annotations

from typing import Literal

import torch

from .levels import Level, combine

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


def to_x0(output: torch.Tensor, x: torch.Tensor, t: Level, prediction: Prediction) -> torch.Tensor:
    """The data prediction x̂ from a network's output at (x, t).

    Args:
        output: what the network returned, same shape as x.
        x: its input in the schedule's own coordinates (VP or flow; not VE), any shape.
        t: level of x, floats or tensors that broadcast against x.
        prediction: "epsilon", "v_prediction" (VP), "flow" (velocity ε − x_0) or "sample".

    Raises:
        ValueError: unknown prediction; or "epsilon" at alpha = 0, where x is pure noise and says nothing of the data.
    """
    if prediction == "sample":
        return output
    if prediction == "v_prediction":
        return combine(t.alpha, -t.sigma, x, output)
    if prediction == "flow":
        return combine(1.0, -t.sigma, x, output)
    if prediction == "epsilon":
        if not isinstance(t.alpha, torch.Tensor) and t.alpha == 0:
            raise ValueError(
                f"an epsilon-prediction network gives no data prediction at time {t.t}, where alpha = 0 (zero terminal "
                "SNR): use v-prediction there, or start below that time"
            )
        return combine(1 / t.alpha, -t.sigma / t.alpha, x, output)
    raise ValueError(f"prediction must be epsilon, v_prediction, flow or sample, got {prediction!r}")


def to_eps(x0: torch.Tensor, x: torch.Tensor, t: Level) -> torch.Tensor:
    """``ε̂ = (x − alpha x̂) / sigma``.

    Raises:
        ValueError: sigma = 0, where x holds no noise.
    """
    if not isinstance(t.sigma, torch.Tensor) and t.sigma == 0:
        raise ValueError(f"no noise can be predicted at time {t.t}, where sigma = 0")
    return (x - t.alpha * x0) / t.sigma


def from_x0(x0: torch.Tensor, x: torch.Tensor, t: Level, prediction: Prediction) -> torch.Tensor:
    """What a network of that kind would have returned for the data prediction x̂ at (x, t); inverse of `to_x0`."""
    return x0 if prediction == "sample" else from_pair(x0, to_eps(x0, x, t), t, prediction)


def from_pair(x0: torch.Tensor, eps: torch.Tensor, t: Level, prediction: Prediction) -> torch.Tensor:
    """What a network of that kind should return at ``x = alpha x_0 + sigma ε``: its training target.

    Args:
        x0, eps: data and noise, of one shape.
        t: level of x, floats or tensors that broadcast against x.

    Raises:
        ValueError: unknown prediction.
    """
    if prediction == "sample":
        return x0
    if prediction == "epsilon":
        return eps
    if prediction == "v_prediction":
        return t.alpha * eps - t.sigma * x0
    if prediction == "flow":
        return eps - x0
    raise ValueError(f"prediction must be epsilon, v_prediction, flow or sample, got {prediction!r}")
