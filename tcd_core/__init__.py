"""Trajectory consistency distillation (arXiv 2402.19159): the mathematics, with torch and NumPy alone.

- `levels`: a noise level (alpha, sigma), what every formula is written in
- `schedules`: alpha, sigma, lambda at a time: VP discrete, the same in VE coordinates, rectified flow
- `predictions`: noise, velocity and data prediction into one another
- `tcf`: trajectory consistency functions TCF(1), TCF(2), TCF(S+)
- `times`: the reference's inference times
- `gamma`: gamma as a function of progress
- `sss`: strategic stochastic sampling: one step, the plan of a run, the loop
- `noise`: step noise keyed by (seed, item, time)
- `target_embedding`: TCF(S+)'s extra parameters
"""

from .gamma import GammaSchedule, gamma_per_step
from .levels import Level, half_log_snr, ve_to_vp, vp_to_ve
from .noise import KeyedNoise
from .predictions import from_x0, to_eps, to_x0
from .schedules import FlowSchedule, FlowVESchedule, VESchedule, VPSchedule, shift_time
from .sss import Step, diffuse_coefficients, plan, sample, sss_step, target_level
from .tcf import jump_coefficients, midpoint_weight, multistep_weight, tcf1, tcf2, tcf_s_plus
from .times import explicit_times, inference_times

__all__ = [
    "FlowSchedule",
    "FlowVESchedule",
    "GammaSchedule",
    "KeyedNoise",
    "Level",
    "Step",
    "VESchedule",
    "VPSchedule",
    "diffuse_coefficients",
    "explicit_times",
    "from_x0",
    "gamma_per_step",
    "half_log_snr",
    "inference_times",
    "jump_coefficients",
    "midpoint_weight",
    "multistep_weight",
    "plan",
    "sample",
    "shift_time",
    "sss_step",
    "target_level",
    "tcf1",
    "tcf2",
    "tcf_s_plus",
    "to_eps",
    "to_x0",
    "ve_to_vp",
    "vp_to_ve",
]
