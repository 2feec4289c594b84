"""Inference times tau_0 > tau_1 > … of a discrete schedule, as the reference chooses them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

DenseGrid = Literal["never", "when needed", "always"]


def inference_times(
    steps: int,
    *,
    num_train_timesteps: int = 1000,
    original_inference_steps: int = 50,
    strength: float = 1.0,
    dense: DenseGrid = "never",
) -> list[int]:
    """``steps`` times spread evenly, by index, over the grid ``t_i = i k − 1``, i = 1 … original_inference_steps.

    The grid, of step ``k = N // original_inference_steps``, is the one the network was distilled on. Its first
    ``int(original_inference_steps · strength)`` points are kept, reversed, and the indices
    ``floor(linspace(0, len, steps, endpoint=False))`` taken: exactly ``steps`` times whatever the strength. 4 steps:
    999, 759, 499, 259; at strength 0.3: 299, 239, 159, 79.

    Args:
        steps: M, how many times.
        num_train_timesteps: N.
        original_inference_steps: points of the whole grid (the reference's *config field* of that name).
        strength: share of the grid used, in (0, 1]; img2img.
        dense: the one extension of the reference: take all of 0 … int(N · strength) − 1 as grid (what the reference's
            *argument* original_inference_steps does), "always", or "when needed", where the grid has too few points.

    Returns:
        Descending integers.

    Raises:
        ValueError: where the reference raises: more steps than the grid has points, or a grid finer than N; and for a
            strength outside (0, 1] or steps below 1.
    """
    n = num_train_timesteps
    if not (math.isfinite(steps) and steps >= 1 and steps == int(steps)):
        raise ValueError(f"steps must be a whole number from 1 up, got {steps}")
    if not 0 < strength <= 1:
        raise ValueError(f"strength must lie in (0, 1], got {strength}")
    if not 1 <= original_inference_steps <= n:
        raise ValueError(f"original_inference_steps must lie in 1 … {n}, got {original_inference_steps}")
    points = int(original_inference_steps * strength)
    grid = np.arange(1, points + 1) * (n // original_inference_steps) - 1
    if dense == "always" or (dense == "when needed" and steps > points):
        grid = np.arange(int(n * strength))
    if len(grid) == 0:
        raise ValueError(f"strength {strength:g} leaves no time of the grid's {original_inference_steps}: raise it")
    if steps > len(grid):
        raise ValueError(
            f"{steps} steps do not fit the grid's {len(grid)} times: use at most {len(grid)} steps"
            + (", or a higher strength" if strength < 1 else "")
            + (", or the dense grid" if dense == "never" else "")
        )
    indices = np.floor(np.linspace(0, len(grid), num=int(steps), endpoint=False)).astype(np.int64)
    return grid[::-1][indices].tolist()


def explicit_times(
    times: Sequence[float], *, num_train_timesteps: int | None = 1000, strength: float = 1.0
) -> list[int] | list[float]:
    """Explicit descending times; a strength below 1 keeps the last ``int(len · strength)``, as the reference does.

    Args:
        times: whole numbers in 0 … N−1; for a flow numbers in (0, 1].
        num_train_timesteps: N; None for a flow.

    Raises:
        ValueError: no times, not descending, not whole numbers of the schedule, or none left by the strength.
    """
    shown = ", ".join(f"{t:g}" for t in times)
    if len(times) == 0:
        raise ValueError("no times given: write them in descending order, such as 999, 759, 499, 259")
    if not all(b < a for a, b in zip(times, times[1:], strict=False)):
        raise ValueError(f"times must be in descending order, got {shown}")
    if num_train_timesteps is None:
        if not (times[0] <= 1 and times[-1] > 0):
            raise ValueError(f"a flow's times must lie in (0, 1], got {shown}")
    elif not all(math.isfinite(t) and t == int(t) for t in times):
        raise ValueError(f"times of a discrete schedule are whole numbers, got {shown}")
    elif times[0] >= num_train_timesteps or times[-1] < 0:
        raise ValueError(f"times must lie in 0 … {num_train_timesteps - 1}, got {shown}")
    if not 0 < strength <= 1:
        raise ValueError(f"strength must lie in (0, 1], got {strength}")
    kept = min(int(len(times) * strength), len(times))
    if kept == 0:
        raise ValueError(f"strength {strength:g} leaves none of the {len(times)} times: raise it or give more times")
    kind = float if num_train_timesteps is None else int
    return [kind(t) for t in times[len(times) - kept :]]
