"""TCD Grid: the same picture at several step counts and gammas, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import comfy.model_management
import latent_preview
import torch
from comfy_api.latest import io

from .gamma import CATEGORY, order_input
from .grid_layout import MAX_PIXELS
from .grid_picture import draw_grid
from .grid_settings import MAX_CELLS, GridSettings, Run
from .host import tcd_sigmas
from .ksampler import common_inputs, denoise_input
from .running import fitted_samples, item_numbers, sample_whole


class Grid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        shared = common_inputs("seed")
        return io.Schema(
            node_id="TCDToolkit_Grid",
            display_name="TCD Grid",
            category=CATEGORY,
            description="One picture at several step counts (rows) and gammas (columns) as a labelled grid: which "
            "gamma suits this model. Each cell is what KSampler (TCD) and VAE Decode give at that setting.",
            inputs=[
                shared["model"],
                io.Vae.Input("vae", tooltip="Decodes each cell as soon as it is sampled."),
                shared["positive"],
                shared["negative"],
                io.Latent.Input(
                    "latent_image",
                    tooltip="The latent that every cell starts from: empty for text to image. A batch becomes a block "
                    "for each of its items. Masks work as in KSampler (TCD); video does not fit into a grid.",
                ),
                io.String.Input("steps", default="2, 4, 8", tooltip="A row for each: step counts separated by commas."),
                io.String.Input(
                    "gammas",
                    default="0, 0.3, 1",
                    tooltip="A column for each: gammas from 0 to 1 separated by commas. 0 is deterministic (DDIM), 1 "
                    "multistep consistency sampling (as LCM is sampled). At 1 step gamma changes nothing.",
                ),
                shared["cfg"],
                denoise_input(),
                order_input(),
                shared["seed"],
                io.String.Input(
                    "seeds",
                    default="",
                    optional=True,
                    tooltip="A block of cells for each: seeds separated by commas. Empty: seed alone. At most "
                    f"{MAX_CELLS} cells in all.",
                ),
                io.Int.Input(
                    "max_cell",
                    default=2048,
                    min=64,
                    max=8192,
                    step=64,
                    optional=True,
                    tooltip="Longest side of a cell in pixels; larger pictures are reduced to it. They are reduced "
                    f"further where the grid would have more than {MAX_PIXELS // 10**6} megapixels; the log then "
                    "says so.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="grid", tooltip="The labelled grid."),
                io.Image.Output(
                    display_name="cells",
                    is_output_list=True,
                    tooltip="The cells without labels, one by one, row after row: for Save Image.",
                ),
                io.String.Output(
                    display_name="names",
                    is_output_list=True,
                    tooltip="Each cell's settings, such as seed_7_steps_4_gamma_0.3: for Save Image's filename_prefix.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        positive,
        negative,
        latent_image,
        steps,
        gammas,
        cfg,
        denoise,
        order,
        seed,
        seeds="",
        max_cell=2048,
    ) -> io.NodeOutput:
        settings = GridSettings.parse(steps, gammas, seeds, seed)
        items = picture_numbers(model, latent_image)
        settings.check_size(len(items))
        model_sampling = model.get_model_object("model_sampling")
        sigmas = {count: tcd_sigmas(model_sampling, count, denoise) for count in settings.steps}
        progress = one_progress_bar(model, sum(max(0, len(sigmas[run.steps]) - 1) for run in settings.runs()))

        def pictures_of(run: Run) -> torch.Tensor:
            comfy.model_management.throw_exception_if_processing_interrupted()
            conditions = (positive, negative, latent_image)
            samples = sample_whole(model, run.seed, cfg, *conditions, sigmas[run.steps], run.gamma, order, progress)
            return decoded(vae, samples, len(items))

        grid = draw_grid(settings, items, pictures_of, max_cell)
        return io.NodeOutput(grid.pixels[None], grid.cells(), settings.names(items))


def picture_numbers(model, latent: dict) -> list[int]:
    """The numbers of the latent's batch items; ValueError where they are no single pictures."""
    samples = fitted_samples(model, latent)
    frames = samples.shape[2] if samples.ndim == 5 else 1
    if samples.ndim not in (4, 5) or frames > 1 or latent.get("type") == "audio":
        what = f"{frames} frames of video" if frames > 1 else f"no picture (its shape is {tuple(samples.shape)})"
        raise ValueError(f"TCD Grid puts single pictures side by side, and latent_image holds {what}")
    return item_numbers(latent, samples)


def decoded(vae, samples: torch.Tensor, items: int) -> torch.Tensor:
    """What VAE Decode gives: items × height × width × channels in [0, 1]."""
    pictures = vae.decode(samples)
    pictures = pictures.reshape(-1, *pictures.shape[-3:]) if pictures.ndim == 5 else pictures
    if pictures.ndim != 4 or len(pictures) != items or pictures.shape[-1] < 3:
        raise ValueError(
            f"TCD Grid: the VAE makes no single picture in colour of a latent (it made {tuple(pictures.shape)} of "
            f"{tuple(samples.shape)}): connect the VAE that belongs to the model"
        )
    return pictures


def one_progress_bar(model, total: int) -> Callable:
    """A callback for run after run, `total` steps in all, that shows what KSampler's own does for one."""
    report, done = latent_preview.prepare_callback(model, total), itertools.count()
    return lambda step, x0, x, steps: report(next(done), x0, x, total)
