"""What the property tests draw from: schedules with runs on them, gammas, shapes."""

from functools import cache

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tcd_core import FlowSchedule, GammaSchedule, VESchedule, VPSchedule

# The same examples every time, and no deadline: a slow machine is no defect.
PROPERTY = settings(
    deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow], database=None
)
VP, VE, FLOW = VPSchedule.scaled_linear(), VESchedule.scaled_linear(), FlowSchedule()
ZERO_SNR = VP.zero_terminal_snr()
TIMES = (999, 759, 499, 259)

gammas = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.3, 1e-12, 1 - 1e-12])
shapes = st.lists(st.integers(1, 3), min_size=1, max_size=5).map(tuple)
gamma_schedules = st.builds(
    GammaSchedule,
    shape=st.sampled_from(["constant", "linear", "cosine", "power"]),
    start=gammas,
    end=gammas,
    exponent=st.floats(0.1, 5),
) | st.builds(
    GammaSchedule, shape=st.just("list"), values=st.lists(gammas, min_size=1, max_size=6), interpolate=st.just(True)
)


@cache
def distilled():
    """A distilled model's schedule: 50 VE sigmas of 1000 times."""
    sigmas = np.sqrt((1 - VE.alpha_bar) / VE.alpha_bar)
    return VESchedule.from_ve_sigmas(sigmas[19::20], 1000)


def falling(numbers, most=8):
    """Strategy: 1 … most different numbers, falling."""
    return st.lists(numbers, min_size=1, max_size=most, unique=True).map(lambda found: sorted(found, reverse=True))


@st.composite
def runs(draw, most=8):
    """(schedule, levels of tau_0 …): table times, VE sigmas between and beyond the table's, flow times, all falling.

    The flow starts at t = 1 (alpha = 0) every so often, the zero-terminal-SNR table at its last time (alpha = 0).
    """
    kind = draw(st.sampled_from(["VP", "zero SNR", "VE", "distilled", "flow"]))
    if kind == "flow":
        times = draw(falling(st.floats(1e-4, 1).map(lambda t: round(t, 4)) | st.just(1.0), most))
        return FLOW, [FLOW.level(t) for t in times]
    if kind in ("VP", "zero SNR"):
        schedule = VP if kind == "VP" else ZERO_SNR
        return schedule, [schedule.level(t) for t in draw(falling(st.integers(1, 999) | st.just(999), most))]
    schedule = VE if kind == "VE" else distilled()
    table = st.integers(1, 999).map(lambda t: schedule.level(t).sigma)
    anything = st.floats(-4, 3).map(lambda log: float(np.float32(np.exp(log))))
    return schedule, [schedule.level_at_sigma(sigma) for sigma in draw(falling(table | anything, most))]
