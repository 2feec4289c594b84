"""Writes the example workflows: `python docs/workflows/make.py [FOLDER]`, into example_workflows unless told otherwise.

Settings that others recommend are theirs: the TCD LoRAs' from their model cards and diffusers' guide to TCD, those of
Hyper-SD from its model card. A test holds the files in example_workflows to this; `draw.py` makes the thumbnails.
"""

from __future__ import annotations

import sys
from pathlib import Path

import other_loras
import tcd_loras
import with_pictures
from canvas import Canvas

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
WORKFLOWS = (
    tcd_loras.text_to_image_sd15,
    tcd_loras.text_to_image_sdxl,
    tcd_loras.community_checkpoint,
    tcd_loras.high_step_count,
    tcd_loras.gamma_schedule,
    tcd_loras.gamma_steps_grid,
    tcd_loras.style_lora,
    tcd_loras.own_lora,
    tcd_loras.stock_ksampler,
    tcd_loras.stock_solvers,
    with_pictures.image_to_image,
    with_pictures.inpainting,
    with_pictures.controlnet_canny,
    with_pictures.controlnet_depth,
    with_pictures.ip_adapter,
    other_loras.hyper_sd_1_step,
    other_loras.hyper_sd_8_steps,
    other_loras.flow_sd3,
    other_loras.flow_flux,
)


def main(folder: Path = FOLDER) -> None:
    """Each workflow into a file of its function's name."""
    for build in WORKFLOWS:
        build(canvas := Canvas(build.__name__))
        (folder / f"{canvas.name}.json").write_text(canvas.json(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
