"""Which jumps a distillation step learns: the grid of start times, segments, end times (arXiv 2402.19159, section 4.2).

A student pair starts at t_{n+k}, its target pair one grid step below at t_n, and both jump to the end time t_m = s. For
a run split into segments (TSCD, PCM) s stays above the lower end b of the segment that the jump starts in; one segment
has b = 0. With probability ``lower_share`` s is b itself, else it is drawn from [b, t_n]. So in one code:

=================  ============  ======================================================
                   lower_share   segments
=================  ============  ======================================================
TCD                0 … 1         (1,)
LCM                1             (1,)
TSCD (Hyper-SD)    0 … 1         (8, 4, 2, 1): stages of equal length over the run
PCM                1             (4,), or as many phases as wanted
=================  ============  ======================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tcd_core import FlowSchedule
from tcd_core.sss import Schedule


@dataclass(frozen=True)
class TimeGrid:
    """The times t_0 < t_1 < … < t_G that a teacher steps along: ``t_i = i k − 1`` (VP), ``i k / N`` (flow), t_0 = 0.

    Attributes:
        times: shape (G + 1,), float64, in the schedule's units.
        integers: whether times between grid points are the schedule's whole numbers (VP) or any fraction (flow).
    """

    times: np.ndarray
    integers: bool

    @classmethod
    def of(cls, schedule: Schedule, skip: int, num_train_timesteps: int = 1000) -> TimeGrid:
        """The grid of step k = ``skip``, in units of 1/N of the whole time span; skip divides N.

        Raises:
            ValueError: skip does not divide N.
        """
        flow = isinstance(schedule, FlowSchedule)
        n = num_train_timesteps if flow else schedule.num_train_timesteps
        if skip < 1 or n % skip:
            raise ValueError(f"skip must divide the schedule's {n} times, got {skip}: use 10, 20, 25, 40 or 50")
        times = np.arange(0, n + 1, skip, dtype=np.float64)
        return cls(times / n if flow else np.maximum(times - 1, 0), integers=not flow)

    def __len__(self) -> int:
        """G, the number of start times."""
        return len(self.times) - 1

    def lower_ends(self, segments: int) -> np.ndarray:
        """Index of the segment's lower end for each start index 1 … G (entry 0 unused), segments of equal length.

        Raises:
            ValueError: more segments than grid steps.
        """
        if segments > len(self):
            raise ValueError(f"{segments} segments do not fit a grid of {len(self)} steps: use a smaller skip")
        edges = np.round(np.linspace(0, len(self), segments + 1)).astype(int)
        starts = np.arange(len(self) + 1)
        return edges[np.maximum(np.searchsorted(edges, starts, side="left") - 1, 0)]


def segments_at(progress: float, segments: Sequence[int]) -> int:
    """The number of segments at a run's progress in [0, 1): stages of equal length."""
    return segments[min(int(progress * len(segments)), len(segments) - 1)]


def draw_starts(grid: TimeGrid, count: int, generator: torch.Generator) -> np.ndarray:
    """Start indices i, uniform over 1 … G; the start time is ``times[i]``, its target's ``times[i − 1]``."""
    return torch.randint(1, len(grid) + 1, (count,), generator=generator).numpy()


def draw_ends(
    grid: TimeGrid,
    starts: np.ndarray,
    lower: np.ndarray,
    lower_share: float,
    on_grid: bool,
    generator: torch.Generator,
) -> np.ndarray:
    """End times s, one per start: the segment's lower end with probability ``lower_share``, else uniform up to t_n.

    Args:
        starts: start indices, shape (B,).
        lower: index of each one's lower end, shape (B,).
        on_grid: draw from the grid's points in [b, t_n], both ends included, in place of all of the schedule's times.

    Returns:
        Times, shape (B,), in the schedule's units.
    """
    at_lower = torch.rand(len(starts), generator=generator, dtype=torch.float64).numpy() < lower_share
    uniform = torch.rand(len(starts), generator=generator, dtype=torch.float64).numpy()
    b, t_n = grid.times[lower], grid.times[starts - 1]
    if on_grid:
        s = grid.times[lower + np.floor(uniform * (starts - lower)).astype(int)]
    elif grid.integers:
        s = b + np.floor(uniform * (t_n - b + 1))
    else:
        s = b + uniform * (t_n - b)
    return np.where(at_lower, b, s)


def end_time_moments(
    schedule: Schedule, grid: TimeGrid, lower: np.ndarray, lower_share: float, points: int = 257
) -> np.ndarray:
    """E[alpha_s²], E[alpha_s sigma_s], E[sigma_s²] over the end times of `draw_ends`, for each start index.

    They make the mean over s of TCF(1)'s squared residual ``‖alpha_s Δx̂ + sigma_s Δε‖²`` a closed form. On a flow the
    integral over s is Simpson's rule on ``points`` points, exact for its quadratic moments.

    Returns:
        shape (G + 1, 3), float64; row 0 unused.
    """

    def moments(t: float) -> np.ndarray:
        level = schedule.level(t)
        return np.array([level.alpha**2, level.alpha * level.sigma, level.sigma**2])

    result = np.zeros((len(grid) + 1, 3))
    table = np.array([moments(t) for t in range(schedule.num_train_timesteps)]) if grid.integers else None
    for i in range(1, len(grid) + 1):
        b, t_n = grid.times[lower[i]], grid.times[i - 1]
        if table is not None:
            mean = table[int(b) : int(t_n) + 1].mean(axis=0)
        else:
            mean = _simpson(np.array([moments(t) for t in np.linspace(b, t_n, points)]))
        result[i] = lower_share * moments(b) + (1 - lower_share) * mean
    return result


def _simpson(values: np.ndarray) -> np.ndarray:
    """Mean over an odd number of equally spaced points by Simpson's rule."""
    weights = np.full(len(values), 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return weights @ values / weights.sum()
