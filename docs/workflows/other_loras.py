"""Few-step LoRAs that are not TCD's but are sampled the same way."""

from __future__ import annotations

from canvas import OURS, Canvas, out
from files import FLUX, HYPER_1, HYPER_8, HYPER_FLUX, HYPER_SD3, SD3, SDXL
from parts import NO_EFFECT, SEA, SIZE_XL, few_steps, ksampler, model, note, picture, prompts, size, text_to_image

SHIFT = "tcd_flow_shift"  # what the gamma plot keeps in a node: the shift of a flow's times


def hyper_sd_1_step(c: Canvas) -> None:
    note(
        c,
        "Hyper-SD: SDXL in 1 step",
        [SDXL, HYPER_1],
        "The *unified* LoRA of Hyper-SD is made for 1 to 8 steps of this sampler. 1 step, γ 1 (there `eta=1.0`), cfg 1 "
        "are its model card's. With one step γ changes nothing, with more it does: less γ, more detail.",
        tries=[
            "4 or 8 steps with the same file, γ 1 first, then less",
            "a start at time 800, as the card has it for its one-step UNet: TCD Scheduler with times `800`, into the "
            "sampler's sigmas",
            "SD 1.5: `Hyper-SD15-1step-lora.safetensors`, from the same page",
        ],
    )
    text_to_image(c, SDXL, HYPER_1, SIZE_XL, SEA, steps=1, gamma=1.0)


def evenly_timed(
    c: Canvas, loaded: dict, patched: dict, conditions: tuple, steps: int, latent: str = "EmptyLatentImage", **settings
) -> None:
    """From times and size on, in the column that is begun: KSampler (TCD) at γ 0 and even distances, picture."""
    with c.group("Times", OURS):
        grid = {"denoise": 1.0, "original_steps": 1000, "times": ""}
        sigmas = c.add("TCDToolkit_Scheduler", wide=260, model=patched, steps=steps, **grid)
    empty = size(c, SIZE_XL, latent, wide=260)
    c.column()
    with c.group("Sampling", OURS):
        sampled = ksampler(c, patched, *conditions, empty, steps=steps, gamma=0.0, sigmas=sigmas, **settings)
    picture(c, sampled, out(loaded, "VAE"))


def hyper_sd_8_steps(c: Canvas) -> None:
    note(
        c,
        "Hyper-SD: SDXL in 8 steps",
        [SDXL, HYPER_8],
        "Hyper-SD's LoRAs for 2, 4 and 8 steps are sampled with DDIM at evenly spaced times, cfg 1. That is γ 0 here, "
        "and `original_steps` 1000 in TCD Scheduler: times 999, 874 … 124, as diffusers' DDIM has them with "
        '`timestep_spacing="trailing"`. The sigmas that are connected replace the sampler\'s steps and denoise.',
        tries=[
            "γ 0.1 to 0.3",
            "the LoRA for 4 steps, with 4 steps in TCD Scheduler",
            "`Hyper-SDXL-8steps-CFG-lora.safetensors` with cfg 5 to 8: there the negative prompt works",
        ],
    )
    loaded = model(c, SDXL)
    c.column()
    patched = few_steps(c, loaded, HYPER_8)
    conditions = prompts(c, out(loaded, "CLIP"), SEA)
    c.column()
    c.y += 560
    evenly_timed(c, loaded, patched, conditions, 8)


def flow_sd3(c: Canvas) -> None:
    note(
        c,
        "A flow model: SD3 in 4 steps",
        [SD3, HYPER_SD3],
        "Rectified flow models are sampled the same way; γ 0 is Euler, with which the authors use this LoRA. Strength "
        "0.125 (shown as 0.13) and cfg 3 at 4 steps are its card's. It keeps guidance: the negative prompt works. "
        "`original_steps` 1000 gives evenly spaced times.",
        tries=[
            "γ 0.1 to 0.3: noise put back, as with a TCD LoRA; this LoRA was not made for it",
            "the LoRAs for 8 and 16 steps, with cfg 5 and 7",
        ],
    )
    loaded = model(c, SD3)
    c.column()
    patched = few_steps(c, loaded, HYPER_SD3, 0.125)
    conditions = prompts(c, out(loaded, "CLIP"), SEA, "blurry, low contrast", "Negative prompt")
    c.column()
    c.y += 560
    settings = {"cfg": 3.0, "properties": {SHIFT: 3}}
    evenly_timed(c, loaded, patched, conditions, 4, "EmptySD3LatentImage", **settings)


def flow_flux(c: Canvas) -> None:
    note(
        c,
        "A flow model: Flux in 8 steps",
        [FLUX, HYPER_FLUX],
        "The checkpoint holds the text encoders and the VAE. Strength 0.125 (shown as 0.13), 8 steps and guidance "
        "3.5 are the LoRA's card's; guidance is an input of this model, so cfg is 1. γ 0 is Euler, with which the "
        "authors use the LoRA; `original_steps` 1000 gives evenly spaced times.",
        tries=["γ 0.1 to 0.3; this LoRA was not made for it", "guidance 2.5 to 4", "the LoRA for 16 steps"],
    )
    loaded = model(c, FLUX)
    c.column()
    patched = few_steps(c, loaded, HYPER_FLUX, 0.125)
    with c.group("Prompt"):
        clip = out(loaded, "CLIP")
        negative = c.add("CLIPTextEncode", NO_EFFECT, tall=-30, clip=clip, text="")
        positive = c.add("CLIPTextEncode", "Positive prompt", clip=clip, text=SEA)
    c.column()
    c.y += 380
    with c.group("Guidance"):
        guided = c.add("FluxGuidance", wide=260, conditioning=positive, guidance=3.5)
    evenly_timed(c, loaded, patched, (guided, negative), 8, "EmptySD3LatentImage", properties={SHIFT: 3.158})
