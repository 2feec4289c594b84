"""Generation by `training.evaluation` against diffusers' own pipeline: same model, prompts, steps and batch, in turns.

    python benchmarks/evaluation.py [--family sd15] [--resolution 256] [--batch 4] [--rounds 7]

Both make whole batches from words to arrays of pixels: TCD LoRA merged, no guidance. A small random model, on a GPU if
there is one. Prints each one's median seconds a batch, and the ratio of the two (below 1: faster than the pipeline).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import diffusers
import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from training_support.evaluations import write_lora  # noqa: E402
from training_support.pretrained import write_small_checkpoint  # noqa: E402

from training import models  # noqa: E402
from training.evaluation import pictures  # noqa: E402
from training.evaluation.cells import Cell, Method  # noqa: E402
from training.evaluation.generation import _latents  # noqa: E402
from training.evaluation.lora import merge  # noqa: E402
from training.evaluation.model import Model  # noqa: E402
from training.evaluation.prompts import numbered  # noqa: E402


def pipeline(model: Model, network, dtype: torch.dtype):
    """diffusers' pipeline of the same parts."""
    found = model.family.found
    texts = models.load_text_encoders(found, dtype=dtype, device=model.device)
    tokenizers = models.load_tokenizers(found)
    parts = {"unet": network, "vae": models.load_vae(found, device=model.device), "text_encoder": texts[0]}
    parts |= {"scheduler": diffusers.TCDScheduler(), "tokenizer": tokenizers[0]}
    if model.name == "sdxl":
        more = {"text_encoder_2": texts[1], "tokenizer_2": tokenizers[1], "add_watermarker": False}
        made = diffusers.StableDiffusionXLPipeline(**parts, **more)
    else:
        more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        made = diffusers.StableDiffusionPipeline(**parts, **more)
    made.set_progress_bar_config(disable=True)
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--family", default="sd15", choices=["sd15", "sd21", "sdxl"])
    for name, value in (("resolution", 256), ("batch", 4), ("rounds", 7)):
        options.add_argument(f"--{name}", type=int, default=value)
    asked = options.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    temporary = tempfile.TemporaryDirectory()
    folder = Path(temporary.name)
    checkpoint = write_small_checkpoint(folder, asked.family)
    write_lora(checkpoint, folder / "lora.safetensors")
    model = Model(str(checkpoint), "fp32", device, asked.resolution, f"{checkpoint}.config")
    student = model.student(folder / "lora.safetensors")
    network = model.base()
    merge(network, folder / "lora.safetensors")
    theirs = pipeline(model, network, torch.float32)
    words = [f"a picture of number {i}" for i in range(asked.batch)]
    prompts = numbered(words)

    @torch.inference_mode()
    def ours_once(steps: int):
        cell = Cell(Method("tcd", "tcd", "sss", "tcd", 0.2), 0.2, steps, 0)
        condition, _ = model.texts(words, empty=False)
        return pictures.to_bytes(model.decode(_latents(cell, model, student, student.network(condition), prompts)))

    def theirs_once(steps: int):
        side = {"height": asked.resolution, "width": asked.resolution}
        return theirs(words, num_inference_steps=steps, eta=0.2, guidance_scale=0.0, output_type="np", **side).images

    print(f"{asked.family}, small and random, {asked.resolution} px, batches of {asked.batch}, {device}")
    print("steps    here, s    pipeline, s    ratio (median of each round's)")
    for steps in (2, 4, 8, 20):
        seconds = {ours_once: [], theirs_once: []}
        for turn in range(asked.rounds + 1):
            for make in (ours_once, theirs_once) if turn % 2 else (theirs_once, ours_once):
                started = time.perf_counter()
                make(steps)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if turn:  # the first warms up
                    seconds[make].append(time.perf_counter() - started)
        ours, others = seconds[ours_once], seconds[theirs_once]
        ratio = median(a / b for a, b in zip(ours, others, strict=True))
        print(f"{steps:5} {median(ours):10.3f} {median(others):14.3f} {ratio:8.3f}")


if __name__ == "__main__":
    main()
