"""Noise schedules: alpha, sigma and lambda at a time, and the time at a lambda, in float64.

`VPSchedule` (discrete, the reference's) and `FlowSchedule` (rectified flow) have the same few methods; `VESchedule` and
`FlowVESchedule` are the two in the coordinates a k-diffusion style host passes to its samplers. Numbers are NumPy
float64 on the CPU: a device that has no float64 never sees them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .levels import Level, ve_to_vp, vp_to_ve

_LAMBDA_LIMIT = 40.0  # stands in for ±inf when times are interpolated in lambda: e^-40 < float64's epsilon
_SMALLEST_R = 0.2  # of (lambda_u − lambda_t) / h; ½ at the exact midpoint
_ON_TABLE = 1e-6  # a lambda this near a table entry's is that entry: float32 sigmas are good to about 1e-7


@dataclass(frozen=True, eq=False)
class VPSchedule:
    """Variance-preserving discrete schedule: ``alpha_t = sqrt(ᾱ_t)``, ``sigma_t = sqrt(1 − ᾱ_t)``, t ∈ {0 … N−1}.

    Between table times lambda is linear in t.

    Args:
        alpha_bar: ᾱ_t = Π (1 − β_i), shape (N,), falling from near 1; the last may be 0 (zero terminal SNR).
        network_times: the times the network was trained on, ascending integers; None for all of the table.

    Raises:
        ValueError: alpha_bar is not one-dimensional, leaves [0, 1] or rises.
    """

    alpha_bar: np.ndarray
    network_times: np.ndarray | None = None
    _lam: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        alpha_bar = np.asarray(self.alpha_bar, dtype=np.float64)
        if alpha_bar.ndim != 1 or len(alpha_bar) < 2:
            raise ValueError(f"alpha_bar must be a list of at least two numbers, got shape {alpha_bar.shape}")
        if not (np.isfinite(alpha_bar).all() and alpha_bar.min() >= 0 and alpha_bar.max() <= 1):
            raise ValueError(f"alpha_bar must lie in [0, 1], got {alpha_bar.min()} … {alpha_bar.max()}")
        if (np.diff(alpha_bar) > 0).any():
            raise ValueError(f"alpha_bar must fall with t, it rises after t = {int(np.argmax(np.diff(alpha_bar) > 0))}")
        with np.errstate(divide="ignore"):
            lam = 0.5 * (np.log(alpha_bar) - np.log1p(-alpha_bar))
        object.__setattr__(self, "alpha_bar", alpha_bar)
        object.__setattr__(self, "_lam", np.clip(lam, -_LAMBDA_LIMIT, _LAMBDA_LIMIT))
        times = np.arange(len(alpha_bar)) if self.network_times is None else np.asarray(self.network_times)
        object.__setattr__(self, "network_times", times)

    # -- constructors ------------------------------------------------------------------------------------------------

    @classmethod
    def from_betas(cls, betas) -> VPSchedule:
        """``ᾱ_t = Π_{i ≤ t} (1 − β_i)``; betas: N numbers in (0, 1]."""
        return cls(np.cumprod(1.0 - np.asarray(betas, dtype=np.float64)))

    @classmethod
    def scaled_linear(cls, num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012):
        """Stable Diffusion's schedule: sqrt(β) linear from sqrt(beta_start) to sqrt(beta_end)."""
        return cls.from_betas(np.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps) ** 2)

    @classmethod
    def from_ve_sigmas(cls, sigmas, num_train_timesteps: int | None = None) -> VPSchedule:
        """From a host's table of VE sigmas ``ς = sigma/alpha``, rising, ``ᾱ = 1 / (1 + ς²)``.

        A table of fewer entries than ``num_train_timesteps`` N belongs to a distilled model that knows only the times
        k−1, 2k−1 … N−1 (k = N / entries; 50 entries: 19, 39 … 999). The other times are filled in by cubic Lagrange
        interpolation of −log ᾱ, which starts from 0 at t = −1; on SD's schedule that is exact to 2·10⁻⁷ in ς.

        Raises:
            ValueError: a sigma is not positive and finite, the entries do not divide N, or are fewer than three.
        """
        sigmas = np.asarray(sigmas, dtype=np.float64)
        if not (np.isfinite(sigmas).all() and (sigmas > 0).all()):
            raise ValueError("a table of VE sigmas must be positive and finite")
        count, total = len(sigmas), num_train_timesteps or len(sigmas)
        if count == total:
            return cls(1.0 / (1.0 + sigmas**2))
        if count > total or total % count:
            raise ValueError(f"{count} sigmas do not fit {total} training times: the first must divide the second")
        if count < 3:
            raise ValueError(f"a short table needs at least 3 sigmas to fill the times in between, got {count}")
        times = np.arange(total // count - 1, total, total // count)
        log_alpha_bar = -_lagrange3(np.arange(total), np.r_[-1, times], np.r_[0.0, np.log1p(sigmas**2)])
        log_alpha_bar[times] = -np.log1p(sigmas**2)
        return cls(np.minimum.accumulate(np.exp(log_alpha_bar)), network_times=times)

    def zero_terminal_snr(self) -> VPSchedule:
        """Rescaled so that ᾱ_{N−1} = 0: sqrt(ᾱ) shifted and stretched, ᾱ_0 kept (arXiv 2305.08891, Algorithm 1).

        Always in VP coordinates: VE coordinates do not exist at ᾱ = 0.
        """
        root = np.sqrt(self.alpha_bar)
        return VPSchedule(((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2, self.network_times)

    # -- levels ------------------------------------------------------------------------------------------------------

    @property
    def num_train_timesteps(self) -> int:
        """N."""
        return len(self.alpha_bar)

    def level(self, t: float) -> Level:
        """(alpha, sigma) at time t ∈ [0, N−1], exact on the table, lambda linear in between.

        Raises:
            ValueError: t outside the table.
        """
        if not 0 <= t <= self.num_train_timesteps - 1:
            raise ValueError(f"time must lie in [0, {self.num_train_timesteps - 1}], got {t}")
        if t == int(t):
            alpha_bar = float(self.alpha_bar[int(t)])
            return Level(float(t), math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar))
        lam = float(np.interp(t, np.arange(self.num_train_timesteps), self._lam))
        return Level(float(t), math.sqrt(1 / (1 + math.exp(-2 * lam))), math.sqrt(1 / (1 + math.exp(2 * lam))))

    def time_at(self, lam: float) -> float:
        """The time at a half log-SNR, inverse of ``level(t).lam``; clamped to the table, integer where it is one."""
        t = float(np.interp(-lam, -self._lam, np.arange(self.num_train_timesteps)))
        return float(round(t)) if abs(lam - self._lam[round(t)]) < _ON_TABLE else t

    def landing(self, t: Level) -> Level:
        """Where a run's last step from t ends: time 0, as the reference's, that is at ᾱ_0 and not at sigma = 0."""
        return self.level(0)

    # -- what strategic stochastic sampling asks ----------------------------------------------------------------------

    def progress(self, t: float) -> float:
        """How far a run is at time t: ``1 − t / (N − 1)``, 0 at the noisiest time, 1 at time 0."""
        return 1.0 - t / (self.num_train_timesteps - 1)

    def target_time(self, t_next: float, gamma: float) -> float:
        """``s = floor((1 − gamma) t_next)``, in float32 as the reference computes it; off the table without the floor.

        float32 matters: gamma = 0.3, t = 90 gives 63 there and 62 in float64.
        """
        if t_next != int(t_next):
            return (1.0 - gamma) * t_next
        return float(np.floor(np.float32(1.0 - gamma) * np.float32(t_next)))

    def midpoint(self, t: Level, s: Level) -> Level | None:
        """TCF(2)'s u: the network's time nearest to ``lambda_u = (lambda_t + lambda_s)/2``, strictly between s and t.

        None where there is none: lambda infinite at an end, no time of the network in between, or only one so near t
        that the second-order form would divide rounding by r.
        """
        if not (math.isfinite(t.lam) and math.isfinite(s.lam)):
            return None
        between = self.network_times[(self.network_times > s.t) & (self.network_times < t.t)]
        if len(between) == 0:
            return None
        middle = self.time_at(0.5 * (t.lam + s.lam))
        u = self.level(float(between[np.argmin(np.abs(between - middle))]))
        return u if u.lam - t.lam >= _SMALLEST_R * (s.lam - t.lam) else None


@dataclass(frozen=True, eq=False)
class VESchedule(VPSchedule):
    """A `VPSchedule` in VE coordinates ``y = x / alpha``: levels (1, ς_t), ς = sigma/alpha.

    What k-diffusion style hosts hand to samplers. A run's end is in VP coordinates, as the reference's and as the
    decoder expects: ``(x̂ + ς_0 eps) / sqrt(1 + ς_0²)``.
    """

    def level(self, t: float) -> Level:
        return vp_to_ve(super().level(t))

    def landing(self, t: Level) -> Level:
        """Time 0 in VP coordinates, or t's own noise level where a host's sigma already lies below time 0's."""
        return ve_to_vp(Level(0.0, 1.0, min(t.sigma, self.level(0).sigma)))

    def level_at_sigma(self, sigma: float) -> Level:
        """The level of a VE sigma, which is kept as it is; for its time see `time_at_sigma`."""
        return Level(self.time_at_sigma(sigma), 1.0, sigma)

    def time_at_sigma(self, sigma: float) -> float:
        """The time of a VE sigma; 0 at and below time 0's.

        Above the table time goes on, by 1 per unit of lambda: the network knows no time there, but a gamma schedule's
        progress and the noise's keys need to tell such levels apart.

        Raises:
            ValueError: a negative sigma or NaN.
        """
        _check_sigma(sigma)
        if sigma == 0:
            return 0.0
        beyond = self._lam[-1] + math.log(sigma)
        return self.num_train_timesteps - 1 + float(beyond) if beyond > _ON_TABLE else self.time_at(-math.log(sigma))

    def target_time(self, t_next: float, gamma: float) -> float:
        s = super().target_time(t_next, gamma)
        return s if s == t_next else min(s, self.num_train_timesteps - 1.0)


@dataclass(frozen=True)
class FlowSchedule:
    """Rectified flow: ``alpha_t = 1 − t``, ``sigma_t = t``, t ∈ [0, 1], after the model's own time shift."""

    def level(self, t: float) -> Level:
        """(1 − t, t); raises ValueError outside [0, 1]."""
        if not 0 <= t <= 1:
            raise ValueError(f"a rectified flow's time must lie in [0, 1], got {t}")
        return Level(float(t), 1.0 - t, float(t))

    def time_at(self, lam: float) -> float:
        """``t = 1 / (1 + e^lambda)``."""
        return 0.5 * (1.0 - math.tanh(0.5 * lam))

    def landing(self, t: Level) -> Level:
        """Where a run's last step ends: t = 0, the data."""
        return self.level(0.0)

    def progress(self, t: float) -> float:
        """``1 − t``."""
        return 1.0 - t

    def target_time(self, t_next: float, gamma: float) -> float:
        """``s = (1 − gamma) t_next``."""
        return (1.0 - gamma) * t_next

    def midpoint(self, t: Level, s: Level) -> Level | None:
        """TCF(2)'s u at ``lambda_u = (lambda_t + lambda_s)/2``; None where lambda is infinite at an end."""
        if not (math.isfinite(t.lam) and math.isfinite(s.lam)) or t.t <= s.t:
            return None
        return self.level(self.time_at(0.5 * (t.lam + s.lam)))

    def level_at_sigma(self, sigma: float) -> Level:
        """A flow's sigma is its time; ValueError for a negative sigma, one above 1, or NaN."""
        return self.level(self.time_at_sigma(sigma))

    def time_at_sigma(self, sigma: float) -> float:
        """A flow's sigma is its time; what a float32 table's rounding puts above 1 is 1."""
        _check_sigma(sigma)
        return 1.0 if 1.0 < sigma < 1.0 + 1e-5 else sigma


@dataclass(frozen=True)
class FlowVESchedule(FlowSchedule):
    """A rectified flow in VE coordinates ``y = x / (1 − t)``: levels (1, ς_t), ς = t / (1 − t); Cosmos."""

    def level(self, t: float) -> Level:
        """(1, t / (1 − t)); raises ValueError outside [0, 1), since t = 1 has no VE coordinates."""
        return vp_to_ve(super().level(t))

    def level_at_sigma(self, sigma: float) -> Level:
        """The level of a VE sigma, which is kept as it is."""
        return Level(self.time_at_sigma(sigma), 1.0, sigma)

    def time_at_sigma(self, sigma: float) -> float:
        """``t = ς / (1 + ς)``; ValueError for a negative sigma or NaN."""
        _check_sigma(sigma)
        return sigma / (1.0 + sigma)


def shift_time(t, shift: float):
    """The time shift of SD3-type flows, ``shift t / (1 + (shift − 1) t)``, t ∈ [0, 1]; numbers or arrays."""
    return shift * t / (1 + (shift - 1) * t)


def _check_sigma(sigma: float) -> None:
    if not sigma >= 0:
        raise ValueError(f"a sigma must be a number from 0 up, got {sigma}")


def _lagrange3(x: np.ndarray, nodes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Cubic Lagrange interpolation through the four nodes around each x."""
    first = np.clip(np.searchsorted(nodes, x) - 2, 0, len(nodes) - 4)
    index = first[:, None] + np.arange(4)
    result = np.zeros(len(x))
    for i in range(4):
        weight = np.ones(len(x))
        for j in range(4):
            if j != i:
                weight *= (x - nodes[index[:, j]]) / (nodes[index[:, i]] - nodes[index[:, j]])
        result += weight * values[index[:, i]]
    return result
