"""Nodes that say which gamma: a schedule, and a patch that gives the stock KSampler one."""

from __future__ import annotations

from comfy_api.latest import io

from ..tcd_core import GammaSchedule
from ..tcd_core.gamma import SHAPES
from ..tcd_core.sss import ORDERS
from .number_lists import parse_numbers
from .sampling import DEFAULT_GAMMA, DEFAULT_ORDER, GAMMA_KEY, ORDER_KEY

CATEGORY = "TCD Toolkit"
GammaType = io.Custom("TCD_GAMMA")

GAMMA_TOOLTIP = (
    "Stochasticity of strategic stochastic sampling. 0 is deterministic (DDIM), 1 is multistep consistency sampling "
    "(as LCM is sampled). 0.2 to 0.3 suits most TCD LoRAs at 4 steps; more steps take more gamma and gain detail."
)
ORDER_TOOLTIP = (
    "Order of the trajectory consistency function. 1: TCF(1), the reference's. 2: TCF(2), two model evaluations a "
    "step, in its data-prediction form, or in the one that a TCF(2) LoRA was distilled with. 2M: multistep, "
    "extrapolates from the previous step, one evaluation a step."
)
SCHEDULE_TOOLTIP = "Optional gamma schedule: one gamma per step. When connected it replaces gamma."


def gamma_input() -> io.Input:
    return io.Float.Input(
        "gamma", default=DEFAULT_GAMMA, min=0.0, max=1.0, step=0.01, round=0.001, tooltip=GAMMA_TOOLTIP
    )


def order_input(optional: bool = False) -> io.Input:
    return io.Combo.Input(
        "order", options=list(ORDERS), default=DEFAULT_ORDER, optional=optional, tooltip=ORDER_TOOLTIP
    )


def gamma_schedule_input() -> io.Input:
    return GammaType.Input("gamma_schedule", optional=True, tooltip=SCHEDULE_TOOLTIP)


class GammaScheduleNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TCDToolkit_GammaSchedule",
            display_name="TCD Gamma Schedule",
            category=CATEGORY,
            description="Lets gamma change along the run. Progress is measured in diffusion time, so that a split run, "
            "or img2img, uses at each time the gamma that the whole run would.",
            inputs=[
                io.Combo.Input(
                    "shape",
                    options=list(SHAPES),
                    default="linear",
                    tooltip="constant: start only. linear, cosine, power: from start to end. list: values.",
                ),
                io.Float.Input(
                    "start",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Gamma at the noisiest time, progress 0.",
                ),
                io.Float.Input(
                    "end",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Gamma at progress 1, time 0. Not used by constant and list.",
                ),
                io.Float.Input(
                    "exponent",
                    default=2.0,
                    min=0.05,
                    max=20.0,
                    step=0.05,
                    tooltip="Shape power: start + (end - start) * progress^exponent. 1 is linear.",
                ),
                io.String.Input(
                    "values",
                    default="",
                    tooltip="Shape list: gammas separated by commas. Without interpolate, one for each step but the "
                    "last, which adds no noise: 3 values for 4 steps.",
                ),
                io.Boolean.Input(
                    "interpolate",
                    default=False,
                    tooltip="Shape list: spread any number of values evenly over the diffusion time and join them by "
                    "straight lines. Needed when sigmas are split with SplitSigmas.",
                ),
            ],
            outputs=[GammaType.Output(display_name="gamma_schedule")],
        )

    @classmethod
    def execute(cls, shape, start, end, exponent, values, interpolate) -> io.NodeOutput:
        numbers = parse_numbers(values, "gamma values") if shape == "list" else ()
        return io.NodeOutput(GammaSchedule(shape, start, end, exponent, tuple(numbers), interpolate))


class GammaPatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TCDToolkit_GammaPatch",
            display_name="TCD Gamma Patch",
            category=CATEGORY,
            description="Tells sampler 'tcd' which gamma to use on this model: for the stock KSampler, or any other "
            "node that picks its sampler by name. Nodes with a gamma of their own use that.",
            inputs=[
                io.Model.Input("model", tooltip="The model to patch; the output is a patched copy."),
                gamma_input(),
                order_input(optional=True),
                gamma_schedule_input(),
            ],
            outputs=[io.Model.Output(tooltip="The model, for a KSampler with sampler and scheduler 'tcd'.")],
        )

    @classmethod
    def execute(cls, model, gamma, order="1", gamma_schedule=None) -> io.NodeOutput:
        patched = model.clone()
        options = patched.model_options.setdefault("transformer_options", {})
        options[GAMMA_KEY] = gamma if gamma_schedule is None else gamma_schedule
        options[ORDER_KEY] = order
        return io.NodeOutput(patched)
