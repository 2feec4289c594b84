"""Text to image with a TCD LoRA."""

from __future__ import annotations

from canvas import OURS, PLAIN, Canvas, out
from files import ANIMAGINE, MY_LORA, MY_MODEL, PAPERCUT, SD15, SDXL, TCD15, TCDXL
from parts import (
    AUTHORS,
    CFG,
    SEA,
    SIZE,
    SIZE_XL,
    decoded,
    few_steps,
    ksampler,
    model,
    note,
    picture,
    prompts,
    report,
    size,
    stock,
    text_to_image,
)


def text_to_image_sd15(c: Canvas) -> None:
    note(
        c,
        "SD 1.5 in 4 steps",
        [SD15, TCD15],
        f"{AUTHORS} {CFG}",
        "The report says how many of the LoRA's modules matched the model: all of them should.",
        tries=[
            "2 steps for a sketch, 8 for more detail; more steps take more γ",
            "γ 0: no fresh noise, DDIM with this LoRA",
            "any fine-tune of SD 1.5 with the same LoRA",
        ],
    )
    text_to_image(c, SD15, TCD15, SIZE, SEA)


def text_to_image_sdxl(c: Canvas) -> None:
    note(
        c,
        "SDXL in 4 steps",
        [SDXL, TCDXL],
        f"{AUTHORS} {CFG}",
        "SDXL was trained on pictures of about a megapixel: 1024 × 1024, 832 × 1216 and the like.",
        tries=["2 steps for a sketch, 8 for more detail; more steps take more γ", "any fine-tune of SDXL, same LoRA"],
    )
    text_to_image(c, SDXL, TCDXL, SIZE_XL, SEA)


def community_checkpoint(c: Canvas) -> None:
    note(
        c,
        "A community checkpoint",
        [ANIMAGINE, TCDXL],
        "One TCD LoRA serves every fine-tune of its base. This pair, at 8 steps and γ 0.3, is the LoRA authors' own "
        "example. Prompts are written as the checkpoint wants them: here tags.",
        CFG,
        tries=[
            "another fine-tune of SDXL: choose it in Load Checkpoint, nothing else changes",
            "4 steps; a merge that is far from its base needs more",
            "a model that has a few-step LoRA merged in (Lightning, Turbo, Hyper) goes without this LoRA",
        ],
    )
    tags = "1girl, solo, lighthouse keeper, yellow raincoat, lantern, stormy sea, night, masterpiece, best quality"
    text_to_image(c, ANIMAGINE, TCDXL, (832, 1216), tags, steps=8)


def own_lora(c: Canvas) -> None:
    note(
        c,
        "A LoRA of your own",
        [MY_MODEL, MY_LORA],
        "`python -m training.distill` with `--model`, `--comfyui` and `--name my-model` distils your checkpoint, puts "
        "the LoRA into ComfyUI's folder and leaves a workflow like this one in the sidebar, with your names filled in: "
        "see *Distil your own checkpoint* in TCD Toolkit's README. Here choose both files by hand.",
        "4 steps, cfg 1, γ 0.2 are the paper's, and what the trainer writes into the file unless told otherwise; the "
        "report shows what yours recommends. 512 × 512 is SD 1.5's size: take 768 for SD 2.1 (v), 1024 for SDXL.",
        tries=["other fine-tunes of the same base", "the workflow gamma_steps_grid with this LoRA"],
    )
    text_to_image(c, MY_MODEL, MY_LORA, SIZE, SEA, gamma=0.2)


def style_lora(c: Canvas) -> None:
    note(
        c,
        "A style LoRA on top",
        [SDXL, TCDXL, PAPERCUT],
        "Style LoRAs and the TCD LoRA add up, in any order. Both at strength 1, 4 steps, γ 0.3: the LoRA "
        "authors' example. The style LoRA goes through ComfyUI's own loader, because it may change the text encoder "
        "too; its trigger word is `papercut`.",
        CFG,
        tries=["strength 0.6 to 0.8 for the style", "8 steps if the style comes out rough", "any other SDXL LoRA"],
    )
    loaded = model(c, SDXL)
    c.column()
    with c.group("Style LoRA"):
        strengths = {"strength_model": 1.0, "strength_clip": 1.0}
        styled = c.add("LoraLoader", model=loaded, clip=out(loaded, "CLIP"), lora_name=PAPERCUT.name, **strengths)
    c.column()
    patched = few_steps(c, styled, TCDXL)
    conditions = prompts(c, out(styled, "CLIP"), "papercut of a lighthouse on a cliff, stormy sea, layered paper")
    latent = size(c, SIZE_XL)
    c.column()
    report(c, patched)
    with c.group("Sampling", OURS):
        sampled = ksampler(c, patched, *conditions, latent)
    picture(c, sampled, out(loaded, "VAE"))


def high_step_count(c: Canvas) -> None:
    note(
        c,
        "20 steps, and what γ does to them",
        [SDXL, TCDXL],
        "Where LCM loses quality with more steps, TCD does not. Two runs from one seed: γ 0.2, with which the paper "
        "measured 20 steps, and γ 0.5. The authors advise more γ for more steps: fresh noise repairs errors that add "
        "up. Too much of it blurs, so look at both, for your own model.",
        tries=["8 and 50 steps", "the workflow gamma_steps_grid for a whole table"],
    )
    loaded = model(c, SDXL)
    c.column()
    patched = few_steps(c, loaded, TCDXL)
    conditions = prompts(c, out(loaded, "CLIP"), SEA)
    latent = size(c, SIZE_XL)
    c.column()
    for gamma in (0.2, 0.5):
        with c.group(f"20 steps, γ {gamma}", OURS):
            sampled = ksampler(c, patched, *conditions, latent, steps=20, gamma=gamma)
            c.column()
            decoded(c, sampled, out(loaded, "VAE"), f"TCD_20_steps_gamma_{gamma}")


def gamma_schedule(c: Canvas) -> None:
    note(
        c,
        "γ that changes along the run",
        [SD15, TCD15],
        "From 0.5 to 0.1 over 8 steps: much fresh noise while the layout is found and can still be put right, little "
        "at the end, where it costs fine detail. The paper keeps γ constant; this is an extension, to be judged by "
        "eye. While a schedule is connected, the sampler's own γ is not used.",
        "Progress is counted in diffusion time, so that a split run gets the same γ as the whole one. In the plot the "
        "ends can be dragged.",
        tries=[
            "end 0.5 and start 0.1, the other way round",
            "shape `list`: one value per step but the last, which adds no noise, so 7 for 8 steps",
            "the same seed with the schedule unplugged",
        ],
    )
    loaded = model(c, SD15)
    with c.group("γ", OURS):
        shape = {"shape": "linear", "start": 0.5, "end": 0.1, "exponent": 2.0, "values": "", "interpolate": False}
        schedule = c.add("TCDToolkit_GammaSchedule", **shape)
    c.column()
    patched = few_steps(c, loaded, TCD15)
    conditions = prompts(c, out(loaded, "CLIP"), SEA)
    latent = size(c, SIZE)
    c.column()
    with c.group("Sampling", OURS):
        sampled = ksampler(c, patched, *conditions, latent, steps=8, gamma_schedule=schedule)
    picture(c, sampled, out(loaded, "VAE"))


def gamma_steps_grid(c: Canvas) -> None:
    note(
        c,
        "Which γ suits this model?",
        [SD15, TCD15],
        "One picture at 2, 4 and 8 steps (rows) and six γ (columns): the paper's γ figure, for your own model and "
        "prompt. Each cell is what KSampler (TCD) makes at that setting; 84 evaluations of the network in all.",
        CFG,
        tries=[
            "seeds `1, 2, 3`: a block for each, to tell γ from luck",
            "another LoRA, or a strength below 1",
            "single cells: connect cells to a Save Image, and names to its filename_prefix",
        ],
    )
    loaded = model(c, SD15)
    c.column()
    patched = few_steps(c, loaded, TCD15)
    positive, negative = prompts(c, out(loaded, "CLIP"), SEA)
    latent = size(c, SIZE)
    c.column()
    with c.group("Steps × γ", OURS):
        lists = {"steps": "2, 4, 8", "gammas": "0, 0.2, 0.4, 0.6, 0.8, 1", "seeds": ""}
        settings = {"seed": 42, "cfg": 1.0, "denoise": 1.0, "order": "1", "max_cell": 512}
        links = {"positive": positive, "negative": negative, "latent_image": latent, "vae": out(loaded, "VAE")}
        grid = c.add("TCDToolkit_Grid", model=patched, **links, **lists, **settings)
    c.column()
    with c.group("Picture"):
        c.add("SaveImage", wide=760, images=out(grid, "grid"), filename_prefix="TCD_grid")


def stock_ksampler(c: Canvas) -> None:
    note(
        c,
        "TCD in the stock KSampler",
        [SD15, TCD15],
        "Sampler `tcd` and scheduler `tcd` stand in ComfyUI's own lists: use them in any node that has such lists. "
        "A KSampler has no γ: TCD Gamma Patch writes it into the model. The picture is the one of KSampler (TCD) "
        "at the same seed.",
        "denoise below 1 is the stock KSampler's own here: other times than KSampler (TCD)'s.",
        tries=["another scheduler: simple, sgm_uniform, beta", "a gamma schedule, connected to the patch"],
    )
    loaded = model(c, SD15)
    c.column()
    patched = few_steps(c, loaded, TCD15)
    conditions = prompts(c, out(loaded, "CLIP"), SEA)
    latent = size(c, SIZE)
    c.column()
    with c.group("γ", OURS):
        told = c.add("TCDToolkit_GammaPatch", wide=260, model=patched, gamma=0.3, order="1")
    c.column()
    with c.group("Sampling", PLAIN):
        sampled = stock(c, told, *conditions, latent, steps=4, sampler_name="tcd", scheduler="tcd")
    picture(c, sampled, out(loaded, "VAE"))


def stock_solvers(c: Canvas) -> None:
    note(
        c,
        "A TCD LoRA under stock solvers",
        [SD15, TCD15],
        "The weights are still a diffusion model's: the paper samples them with DDIM and SDE-DPM-Solver too. Three "
        "runs of 8 steps, cfg 1, from one seed: ComfyUI's `ddim` and `dpmpp_2m_sde`, and KSampler (TCD). Scheduler "
        "`sgm_uniform` starts at the last time and goes down evenly, as few-step LoRAs want it.",
        tries=[
            "4 steps, where the differences grow",
            "dpmpp_2m, euler_ancestral",
            "γ 0 in KSampler (TCD), next to ddim",
        ],
    )
    loaded = model(c, SD15)
    c.column()
    patched = few_steps(c, loaded, TCD15)
    conditions = prompts(c, out(loaded, "CLIP"), SEA)
    latent = size(c, SIZE)
    c.column()
    for name, title in (("ddim", "DDIM"), ("dpmpp_2m_sde", "SDE-DPM-Solver++(2M)")):
        with c.group(title):
            settings = {"steps": 8, "sampler_name": name, "scheduler": "sgm_uniform"}
            sampled = stock(c, patched, *conditions, latent, **settings)
            c.column()
            decoded(c, sampled, out(loaded, "VAE"), f"TCD_{name}", tall=-60)
    with c.group("TCD", OURS):
        sampled = ksampler(c, patched, *conditions, latent, steps=8)
        c.column()
        decoded(c, sampled, out(loaded, "VAE"), "TCD_tcd")
