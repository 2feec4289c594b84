"""SAMPLER and SIGMAS nodes for the host's custom sampling graph."""

from __future__ import annotations

from comfy_api.latest import io

from .gamma import CATEGORY, gamma_input, gamma_schedule_input, order_input
from .host import tcd_sigmas
from .number_lists import parse_numbers
from .sampling import tcd_sampler


class Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TCDToolkit_Sampler",
            display_name="TCD Sampler",
            category=CATEGORY,
            description="Strategic stochastic sampling (TCD, arXiv 2402.19159) for SamplerCustom. Works with any "
            "sigmas; the TCD Scheduler's make it equal to the reference.",
            inputs=[gamma_input(), order_input(), gamma_schedule_input()],
            outputs=[io.Sampler.Output(tooltip="For SamplerCustom and SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, gamma, order, gamma_schedule=None) -> io.NodeOutput:
        return io.NodeOutput(tcd_sampler(gamma if gamma_schedule is None else gamma_schedule, order))


class Scheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TCDToolkit_Scheduler",
            display_name="TCD Scheduler",
            category=CATEGORY,
            description="The reference's inference times for this model: 999, 759, 499, 259 for 4 steps. Denoise is "
            "the reference's strength: exactly `steps` steps are run, from a lower noise level.",
            inputs=[
                io.Model.Input("model", tooltip="The model whose noise schedule is used."),
                io.Int.Input("steps", default=4, min=1, max=10000, tooltip="How many steps; 2 to 8 is usual."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the time grid used, for img2img. Exactly `steps` steps are run; 0 gives none.",
                ),
                io.Int.Input(
                    "original_steps",
                    default=50,
                    min=1,
                    max=10000,
                    tooltip="Points of the grid the LoRA was distilled on; 50 for the published TCD LoRAs. With more "
                    "steps than points all of the model's times are used.",
                ),
                io.String.Input(
                    "times",
                    default="",
                    optional=True,
                    tooltip="Explicit times in descending order, such as 999, 759, 499, 259, in place of steps, "
                    "counted from 999 to 0 on every model. A flow model also takes times between 1 and 0, 0 excluded.",
                ),
            ],
            outputs=[io.Sigmas.Output(tooltip="For SamplerCustom, or the sigmas input of KSampler (TCD).")],
        )

    @classmethod
    def execute(cls, model, steps, denoise, original_steps, times="") -> io.NodeOutput:
        model_sampling = model.get_model_object("model_sampling")
        return io.NodeOutput(tcd_sigmas(model_sampling, steps, denoise, original_steps, parse_numbers(times, "times")))
