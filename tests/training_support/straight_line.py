"""Algorithms 1 and 2 written down once more, sample by sample in float64, from the paper's formulas alone."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from torch import Tensor

Call = Callable[[Tensor, float, float, Tensor], Tensor]  # (x, t, s, tokens) -> raw output
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHA_BAR = {"vp": torch.cumprod(1 - BETAS, 0), "zero_snr": torch.cumprod(1 - rescale_zero_terminal_snr(BETAS), 0)}


class Point(NamedTuple):
    """A time with its alpha and sigma, worked out here."""

    t: float
    alpha: float
    sigma: float

    @property
    def lam(self) -> float:
        return math.log(self.alpha / self.sigma) if self.alpha > 0 and self.sigma > 0 else math.inf

    @classmethod
    def at(cls, t: float, schedule: str) -> "Point":
        if schedule == "flow":
            return cls(t, 1 - t, t)
        alpha_bar = float(ALPHA_BAR[schedule][round(t)])
        return cls(t, alpha_bar**0.5, (1 - alpha_bar) ** 0.5)


def both(output: Tensor, x: Tensor, p: Point, prediction: str) -> tuple[Tensor, Tensor]:
    """(x̂, ε̂) of a network's raw output."""
    if prediction == "epsilon":
        return (x - p.sigma * output) / p.alpha, output
    if prediction == "v_prediction":
        return p.alpha * x - p.sigma * output, p.alpha * output + p.sigma * x
    if prediction == "flow":
        return x - p.sigma * output, x + (1 - p.sigma) * output
    return output, (x - p.alpha * output) / p.sigma


def first_order(x0: Tensor, eps: Tensor, s: Point) -> Tensor:
    return s.alpha * x0 + s.sigma * eps


def second_order(evaluate, x: Tensor, t: Point, u: Point, s: Point, form: str) -> Tensor:
    """The paper's TCF(2) at a midpoint with any r, in noise prediction, or its Eq. 16 in data prediction."""
    x0_t, eps_t = evaluate(x, t)
    h, r = s.lam - t.lam, (u.lam - t.lam) / (s.lam - t.lam)
    if form == "epsilon":
        x_u = u.alpha / t.alpha * x - u.sigma * math.expm1(r * h) * eps_t
        _, eps_u = evaluate(x_u, u)
        return s.alpha / t.alpha * x - s.sigma * math.expm1(h) * (eps_t + (eps_u - eps_t) / (2 * r))
    x_u = u.sigma / t.sigma * x - u.alpha * math.expm1(-r * h) * x0_t
    x0_u, _ = evaluate(x_u, u)
    return s.sigma / t.sigma * x - s.alpha * math.expm1(-h) * (x0_t + (x0_u - x0_t) / (2 * r))


def losses(recipe, prediction: str, schedule: str, teacher: Call, student: Call, target: Call, batch) -> Tensor:
    """The loss of each sample of a batch, shape (B,); its draws are the batch's, every coefficient is from here."""
    objective, result = recipe.objective, []
    for i in range(len(batch.x0)):
        cond, uncond = (part["encoder_hidden_states"][i : i + 1] for part in (batch.condition, batch.unconditional))
        times = _times(batch, i, schedule)
        t, t_n = times["t"], times["t_n"]
        x_t = t.alpha * batch.x0[i : i + 1].double() + t.sigma * batch.eps[i : i + 1].double()

        w = batch.w[i].item()

        def guided(x, p, cond=cond, uncond=uncond, w=w):
            pairs = [both(teacher(x, p.t, 0.0, c), x, p, prediction) for c in (cond, uncond)]
            if not objective.guided:
                return pairs[0]
            (x0_c, eps_c), (x0_u, eps_u) = pairs
            eps = eps_c + w * (eps_c - eps_u)
            return ((x - p.sigma * eps) / p.alpha if p.alpha > 0 else x0_c + w * (x0_c - x0_u)), eps

        middle = times["teacher_u"] if objective.solver == "dpm2" else t
        x_tn = _jump(guided, x_t, t, middle, t_n, "epsilon")
        distances = []
        for s, u, u_n in times["ends"]:

            def of(network, s=s, cond=cond):
                return lambda x, p: both(network(x, p.t, s.t, cond), x, p, prediction)

            residual = _jump(of(student), x_t, t, u, s, objective.tcf2_form)
            residual = residual - _jump(of(target), x_tn, t_n, u_n, s, objective.tcf2_form)
            distances.append(_distance(residual, objective))
        result.append(_weight(t, prediction, objective) * sum(distances) / len(distances))
    return torch.tensor(result)


def _times(batch, i: int, schedule: str) -> dict:
    def point(level, fallback=None):
        t = (fallback if level is None else level).t[i].item()
        return Point.at(t if schedule == "flow" else round(t), schedule)

    jump = batch.teacher
    ends = [(point(a.s), point(a.u, a.t), point(b.u, b.t)) for a, b in batch.jumps]
    return {"t": point(jump.t), "t_n": point(jump.s), "teacher_u": point(jump.u, jump.t), "ends": ends}


def _jump(evaluate, x: Tensor, t: Point, u: Point, s: Point, form: str) -> Tensor:
    if s.t == t.t:
        return x
    return first_order(*evaluate(x, t), s) if u.t == t.t else second_order(evaluate, x, t, u, s, form)


def _distance(residual: Tensor, objective) -> float:
    square = residual.square().mean().item()
    if objective.distance == "l2":
        return square
    return math.sqrt(square + objective.huber_c**2) - objective.huber_c


def _weight(t: Point, prediction: str, objective) -> float:
    if objective.weight == "none":
        return 1.0
    snr = (t.alpha / t.sigma) ** 2
    return float(np.minimum(snr if prediction == "epsilon" else snr + 1, objective.min_snr_clip))
