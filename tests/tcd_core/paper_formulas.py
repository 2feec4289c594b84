"""The paper's formulas, written out literally (arXiv 2402.19159, sections 4.2 and 4.3), one function per coordinates.

The tests lay them beside `tcd_core`, which uses one formula for all. Everything is float64; eps(x, t) and x0(x, t) are
networks at a level; times are already chosen and the last step goes to the level given as `end`.
"""

import math

import torch

from tcd_core import Level


def lam(t):
    return math.log(t.alpha / t.sigma)


def tcf1(eps, x, t, s):
    """``(alpha_s/alpha_t) x_t − sigma_s (e^h − 1) ε(x_t, t)``."""
    h = lam(s) - lam(t)
    return s.alpha / t.alpha * x - s.sigma * (math.exp(h) - 1) * eps(x, t)


def tcf2_epsilon(eps, x, t, u, s):
    """TCF(2) with r = (lambda_u − lambda_t)/h; r = ½ is the paper's."""
    h = lam(s) - lam(t)
    r = (lam(u) - lam(t)) / h
    eps_t = eps(x, t)
    x_u = u.alpha / t.alpha * x - u.sigma * (math.exp(r * h) - 1) * eps_t
    bracket = eps_t + (eps(x_u, u) - eps_t) / (2 * r)
    return s.alpha / t.alpha * x - s.sigma * (math.exp(h) - 1) * bracket


def tcf2_data(x0, x, t, u, s):
    """The same with data prediction, DPM-Solver++(2S)'s: ``(sigma_s/sigma_t) x − alpha_s (e^−h − 1) [ … ]``."""
    h = lam(s) - lam(t)
    r = (lam(u) - lam(t)) / h
    x0_t = x0(x, t)
    x_u = u.sigma / t.sigma * x - u.alpha * (math.exp(-r * h) - 1) * x0_t
    bracket = x0_t + (x0(x_u, u) - x0_t) / (2 * r)
    return s.sigma / t.sigma * x - s.alpha * (math.exp(-h) - 1) * bracket


def algorithm_4_vp(eps, x, alpha_bar, times, gamma, noises):
    """Algorithm 4 on a discrete VP table; `noises` one tensor a step, the last unused; ends at time 0."""

    def level(t):
        return Level(t, math.sqrt(alpha_bar[t]), math.sqrt(1 - alpha_bar[t]))

    for i, time in enumerate(times):
        next_time = times[i + 1] if i + 1 < len(times) else 0
        t, n = level(time), level(next_time)
        s = level(int(torch.floor((1 - gamma) * torch.tensor(next_time))))
        x_0 = (x - t.sigma * eps(x, t)) / t.alpha
        x_s = s.alpha * x_0 + s.sigma * eps(x, t)
        ratio = n.alpha / s.alpha
        x = ratio * x_s + math.sqrt(max(0.0, 1 - ratio**2)) * noises[i]
    return x


def algorithm_4_ve(x0, y, sigma_of, times, gamma, noises):
    """The same in VE coordinates; sigma_of(t) is the table's ς. Ends at time 0, still in VE coordinates."""
    for i, time in enumerate(times):
        next_time = times[i + 1] if i + 1 < len(times) else 0
        target = int(torch.floor((1 - gamma) * torch.tensor(next_time)))
        at, to, by = sigma_of(time), sigma_of(target), sigma_of(next_time)
        clean = x0(y, Level(time, 1.0, at))
        y_s = clean + to * (y - clean) / at
        y = y_s + math.sqrt(by**2 - to**2) * noises[i]
    return y


def algorithm_4_flow(velocity, x, times, gamma, noises):
    """The same for a rectified flow, ending at 0: there ``x_s = x + (s − t) v``."""
    for i, t in enumerate(times):
        n = times[i + 1] if i + 1 < len(times) else 0.0
        s = (1 - gamma) * n
        x_s = x + (s - t) * velocity(x, Level(t, 1 - t, t))
        a = (1 - n) / (1 - s)
        x = a * x_s + math.sqrt(max(0.0, n**2 - (a * s) ** 2)) * noises[i]
    return x
