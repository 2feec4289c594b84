"""A Gaussian teacher, exact by construction, whose trajectories are known in closed form; and how far a student is off.

Data ``x_0 ~ N(mu, s_0²)``, so ``x_t ~ N(alpha_t mu, v_t)`` with ``v_t = alpha_t² s_0² + sigma_t²``; the data prediction
is ``x̂ = mu + (alpha_t s_0² / v_t) (x_t − alpha_t mu)`` and the probability-flow ODE keeps each point's place in its
marginal: ``x_s = alpha_s mu + sqrt(v_s / v_t) (x_t − alpha_t mu)``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tcd_core import FlowSchedule, Level, VPSchedule, to_x0
from tcd_core.target_embedding import sinusoidal_embedding
from training.draws import WHOLE, generator_for
from training.jumps import Jump, follow, stack

MU = torch.tensor([[[0.6, -0.3], [0.1, 0.8]]])
S0 = 0.5


def _deviation(p: Level) -> Tensor:
    return (p.alpha**2 * S0**2 + p.sigma**2).sqrt()


def exact_output(x: Tensor, t: Level, prediction: str) -> Tensor:
    """E[x_0 | x_t] and E[ε | x_t] as a network of that kind returns them; defined at sigma = 0 too."""
    whitened = (x - t.alpha * MU) / _deviation(t) ** 2
    x0, eps = MU + t.alpha * S0**2 * whitened, t.sigma * whitened
    return {"epsilon": eps, "v_prediction": t.alpha * eps - t.sigma * x0, "flow": eps - x0, "sample": x0}[prediction]


def exact_jump(x: Tensor, t: Level, s: Level) -> Tensor:
    """Where the trajectory through x at t is at s."""
    return s.alpha * MU + _deviation(s) / _deviation(t) * (x - t.alpha * MU)


class TimeEmbedding(nn.Module):
    """As diffusers names it."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(channels, width), nn.Linear(width, width)

    def forward(self, angles: Tensor) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(angles)))


class GaussianNetwork(nn.Module):
    """The exact prediction, plus ``a(t) x + b(t)`` with a and b zero at first: what a student learns."""

    def __init__(self, schedule, prediction: str):
        super().__init__()
        self.schedule, self.prediction = schedule, prediction
        self.time_embedding = TimeEmbedding(16, 32)
        self.head = nn.Linear(32, 1 + MU.numel())
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        t = stack([self.schedule.level(v) for v in times.tolist()])
        scale = 1000.0 if isinstance(self.schedule, FlowSchedule) else 1.0
        change = self.head(functional.silu(self.time_embedding(sinusoidal_embedding(times * scale, 16))))
        a, b = change[:, :1].view(-1, 1, 1, 1), change[:, 1:].view(-1, *MU.shape)
        return exact_output(x, t, self.prediction) + a * x + b


class GaussianFamily:
    """Data, schedule and network of the Gaussian teacher; conditions are empty."""

    architecture, base_model, resolution, no_label = "gaussian/lora", "gaussian", 2, 0
    lora_targets: list[str] = []

    def __init__(self, prediction: str = "epsilon"):
        self.prediction = prediction
        self.schedule = FlowSchedule() if prediction == "flow" else VPSchedule.scaled_linear()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = GaussianNetwork(self.schedule, prediction)

    def output(self, network: nn.Module, x: Tensor, times: Tensor, condition) -> Tensor:
        return network(x, times)

    def data(self, step: int, count: int, seed: int, stream: str, part: slice = WHOLE) -> tuple:
        generator = generator_for(seed, f"{stream} data", step)
        x0 = MU + S0 * torch.randn(count, *MU.shape, generator=generator)
        return torch.arange(count)[part], x0[part], {}, {}


@torch.no_grad()
def tcf_error(task, pairs: list[tuple[float, float]]) -> float:
    """Root mean square of ``f_θ(x_t, t → s)`` less the exact x_s, over points of the marginals at the pairs' t."""
    generator = torch.Generator().manual_seed(7)
    objective = task.recipe.objective
    form = objective.tcf2_form if objective.form == "tcf2" else None
    jump = Jump.of(task.family.schedule, *zip(*pairs, strict=True), form)
    x = jump.t.alpha * MU + _deviation(jump.t) * torch.randn(len(pairs), *MU.shape, generator=generator)

    def student(x: Tensor, t: Level, s: Level) -> Tensor:
        return to_x0(task.student(x, t.t.flatten(), s.t.flatten(), {}), x, t, task.family.prediction)

    return (follow(student, x, jump) - exact_jump(x, jump.t, jump.s)).square().mean().sqrt().item()
