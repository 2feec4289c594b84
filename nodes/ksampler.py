"""KSampler (TCD) and KSampler Advanced (TCD)."""

from __future__ import annotations

from comfy_api.latest import io

from ..tcd_core import gamma_per_step
from .gamma import CATEGORY, gamma_input, gamma_schedule_input, order_input
from .host import tcd_sigmas
from .number_lists import MAX_SEED
from .running import (
    CARRY_KEY,
    Carry,
    continued,
    fitted_samples,
    initial_noise,
    output_latent,
    run_sampler,
    sample_whole,
)
from .sampling import RunState, run_levels, tcd_sampler


def common_inputs(seed_name: str) -> dict[str, io.Input]:
    """The inputs both nodes share, by name."""
    inputs = [
        io.Model.Input("model", tooltip="The model, with a TCD LoRA (TCD LoRA Loader) or another few-step LoRA."),
        io.Int.Input(
            seed_name,
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=True,
            tooltip="Seed of the initial noise and of every step's noise. The same seed gives the same picture, on "
            "any device and however the run is split or batched.",
        ),
        io.Int.Input(
            "steps", default=4, min=1, max=10000, tooltip="How many steps; 2 to 8 is usual, more may be used."
        ),
        io.Float.Input(
            "cfg",
            default=1.0,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="Guidance scale. Guidance is distilled into TCD LoRAs: leave it at 1, which also halves the cost.",
        ),
        gamma_input(),
        io.Conditioning.Input("positive", tooltip="What the picture should show."),
        io.Conditioning.Input("negative", tooltip="What the picture should not show. No effect at cfg 1."),
        io.Latent.Input("latent_image", tooltip="The latent to denoise: empty for text to image."),
    ]
    return {value.id: value for value in inputs}


def denoise_input() -> io.Input:
    return io.Float.Input(
        "denoise",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="The reference's strength, for img2img: exactly `steps` steps are run, from a lower noise level. "
        "0 returns the latent.",
    )


class KSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TCDToolkit_KSampler",
            display_name="KSampler (TCD)",
            category=CATEGORY,
            description="Samples with TCD's strategic stochastic sampling on the reference's times: everything in one "
            "node.",
            inputs=[
                *common_inputs("seed").values(),
                denoise_input(),
                order_input(optional=True),
                gamma_schedule_input(),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="Sigmas of your own; when connected, steps and denoise are not used.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The denoised latent.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        seed,
        steps,
        cfg,
        gamma,
        positive,
        negative,
        latent_image,
        denoise,
        order="1",
        gamma_schedule=None,
        sigmas=None,
    ) -> io.NodeOutput:
        if sigmas is None:
            sigmas = tcd_sigmas(model.get_model_object("model_sampling"), steps, denoise)
        gamma = gamma if gamma_schedule is None else gamma_schedule
        samples = sample_whole(model, seed, cfg, positive, negative, latent_image, sigmas, gamma, order)
        return output_latent(latent_image, samples)


class KSamplerAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        shared = common_inputs("noise_seed")
        switch = ["enable", "disable"]
        return io.Schema(
            node_id="TCDToolkit_KSamplerAdvanced",
            display_name="KSampler Advanced (TCD)",
            category=CATEGORY,
            description="KSampler (TCD) over part of the steps. Two of these in a row, with one seed, give the picture "
            "of the whole run at every gamma and order, inpainting included.",
            inputs=[
                shared["model"],
                io.Combo.Input(
                    "add_noise",
                    options=switch,
                    default="enable",
                    tooltip="Enable in the first stage; disable in a stage that continues another.",
                ),
                shared["noise_seed"],
                shared["steps"],
                shared["cfg"],
                shared["gamma"],
                shared["positive"],
                shared["negative"],
                shared["latent_image"],
                io.Int.Input("start_at_step", default=0, min=0, max=10000, tooltip="First step of this stage."),
                io.Int.Input("end_at_step", default=10000, min=0, max=10000, tooltip="It stops before this step."),
                io.Combo.Input(
                    "return_with_leftover_noise",
                    options=switch[::-1],
                    default="disable",
                    tooltip="Enable if another stage continues; disable to finish the picture.",
                ),
                order_input(optional=True),
                gamma_schedule_input(),
            ],
            outputs=[io.Latent.Output(tooltip="The latent, clean or with the noise of end_at_step left in.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        add_noise,
        noise_seed,
        steps,
        cfg,
        gamma,
        positive,
        negative,
        latent_image,
        start_at_step,
        end_at_step,
        return_with_leftover_noise,
        order="1",
        gamma_schedule=None,
    ) -> io.NodeOutput:
        model_sampling = model.get_model_object("model_sampling")
        whole = tcd_sigmas(model_sampling, steps)
        levels, lands, schedule = run_levels(model_sampling, whole)
        gammas = gamma_per_step(
            gamma if gamma_schedule is None else gamma_schedule, [schedule.progress(v.t) for v in levels], lands
        )
        sigmas = whole[start_at_step : end_at_step + 1].clone()
        samples = fitted_samples(model, latent_image)
        noise, items = initial_noise(latent_image, samples, noise_seed)
        leftover = return_with_leftover_noise == "enable"
        if len(sigmas) < 2:  # no step to take, only what other stages need to hand on
            carry = latent_image.get(CARRY_KEY)
            if add_noise == "enable" and leftover and len(sigmas) == 1:
                carry = Carry.at(model, sigmas[0], samples, samples, noise, RunState())
            return output_latent(latent_image, samples, carry)
        if not leftover:
            sigmas[-1] = 0

        start = None
        if add_noise == "disable":
            samples, noise, start = continued(latent_image, model, sigmas, samples, noise)
        state = RunState()
        part = gammas[start_at_step : start_at_step + len(sigmas) - 1]
        sampler = tcd_sampler(part, order, batch_index=items, start=start, state=state)
        result = run_sampler(model, noise_seed, cfg, positive, negative, sampler, sigmas, latent_image, samples, noise)
        carry = None if sigmas[-1] == 0 else Carry.at(model, sigmas[-1], result, samples, noise, state)
        return output_latent(latent_image, result, carry)
