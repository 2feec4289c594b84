"""Short runs of small pretrained models: their checkpoints, their data, the words of their command lines."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from training.recipe import Recipe, build

from .random_checkpoints import small_config, write_checkpoint

RANK, ALPHA, SIDE = 2, 3.0, 64  # the alpha is not the rank, the side in pixels
PICTURES = 6
QUICK = f"--model.resolution {SIDE} --model.dtype fp32 --data.min_side 32 --data.bucket_step 32 --data.max_aspect 4 "
QUICK += f"--student.rank {RANK} --student.alpha {ALPHA} --student.dtype fp32 --training.steps 3 --training.batch 2 "
QUICK += "--training.precision no --training.accumulation 1 --training.warmup 1 --memory.no_gradient_checkpointing "
QUICK += "--checkpoint.every 1 --validation.every 0 --validation.trackers"
QUICK = tuple(QUICK.split())  # three steps; the list of trackers is empty


def model_words(model: Path, recipe: str = "sd15") -> list[str]:
    """A command line's words for a checkpoint of `write_small_checkpoint`, short and quick."""
    return ["--recipe", recipe, "--model", str(model), "--model.config", f"{model}.config", *QUICK]


def write_small_checkpoint(folder: Path, family: str = "sd15", **more) -> Path:
    """``<folder>/<family>.safetensors``, random, and its configs beside it."""
    path = folder / f"{family}.safetensors"
    small_config(family, folder / f"{path.name}.config")
    return write_checkpoint(path, family, folder / f"{path.name}.config", **more)


def small_recipe(model: Path, pictures: Path, **sections) -> Recipe:
    """`model_words`' recipe on a folder of pictures, for use in this process; sections as in a file."""
    sizes = {"min_side": 32, "bucket_step": 32, "max_aspect": 4.0}
    values = {
        "family": "sd15",
        "baseline": False,
        "model": {"path": str(model), "config": f"{model}.config", "dtype": "fp32", "resolution": SIDE},
        "data": {"images": str(pictures), "cache": str(pictures / ".cache"), **sizes},
        "student": {"rank": RANK, "alpha": ALPHA},
        "training": {"steps": 3, "batch": 2, "warmup": 1},
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section
    return build(values)


def write_pictures(folder: Path, count: int = PICTURES) -> Path:
    """Pictures of noise with captions in two shapes, a third of them in a folder that repeats them twice."""
    for i in range(count):
        place = folder / "2_cats" if i % 3 == 0 else folder
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(picture(i))
        (place / f"{i}.txt").write_text(f"a cat, number {i}")
    return folder


def write_shards(folder: Path, count: int = PICTURES) -> str:
    """The same pictures in two webdataset shards; what names them."""
    for shard in (0, 1):
        with tarfile.open(folder / f"cats-{shard}.tar", "w") as file:
            for i in range(shard, count, 2):
                caption = json.dumps({"caption": f"a cat, number {i}"}).encode()
                for suffix, data in (("png", picture(i)), ("json", caption)):
                    member = tarfile.TarInfo(f"{i:04d}.{suffix}")
                    member.size = len(data)
                    file.addfile(member, io.BytesIO(data))
    return f"{folder}/cats-{{0..1}}.tar"


def write_prompts(path: Path, count: int = 3) -> Path:
    """A file of prompts, one a line."""
    path.write_text("# cats\n" + "".join(f"a cat, number {i}\n" for i in range(count)))
    return path


def picture(seed: int) -> bytes:
    """A PNG of noise, square for even seeds, upright for odd ones."""
    pixels = np.random.default_rng(seed).integers(0, 255, (80, 80, 3) if seed % 2 == 0 else (160, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
