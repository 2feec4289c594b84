"""One job of `trainer.py`'s in a process of its own: model and data written, the cache filled, or a trainer run.

    python benchmarks/trainer_runs.py '{"kind": …, "folder": …, "checkout": …, "steps": …}'

What it took is written to ``result.json`` in the folder.
"""

from __future__ import annotations

import json
import resource
import sys
import tarfile
import time
from collections import Counter
from contextlib import contextmanager
from functools import wraps
from io import BytesIO
from pathlib import Path

SCRIPT = "tcd/train_tcd_distill_lora_sd_wds.py"
SIDE, BATCH, RANK, PICTURES, POOL = 128, 4, 8, 700, 32
OURS, PAIRS, PUBLIC, PUBLIC_FP32 = "this trainer", "teacher pairs kept", "public", "public, fp32"
PARTS = ("student forward", "backward", "teacher", "target", "data", "optimiser")


def run(kind: str, folder: str, checkout: str, steps: int) -> None:
    """Do one job and write what it took to ``result.json``."""
    here = Path(folder)
    if kind == "prepare":
        write_model(here / "model")
        write_shard(here / "data.tar")
        (here / "result.json").write_text("{}")
        return
    meter = Meter()
    meter.found["libraries"] = import_libraries()
    started = time.process_time()
    if kind == "encode":
        meter.found["bytes"] = encode(here)
    elif kind in (OURS, PAIRS):
        train_ours(here, steps, meter, pairs=POOL if kind == PAIRS else 0)
    else:
        train_public(here, Path(checkout), steps, meter, autocast=kind == PUBLIC)
    meter.found |= {"all": time.process_time() - started, "MiB": peak_mib()}
    meter.found["own MiB"] = meter.found["MiB"] - meter.found["libraries"]
    (here / "result.json").write_text(json.dumps(meter.found | meter.per_step()))


def train_ours(folder: Path, steps: int, meter: Meter, pairs: int) -> None:
    """This trainer's command, instrumented; with teacher pairs the steps are those after each has been worked out."""
    from training import distill
    from training.objective import TrajectoryDistillation

    meter.skipped = pairs
    meter.count(TrajectoryDistillation, "draw", "data")
    meter.watch()
    words = our_words(folder, steps + pairs, w=(10.0, 10.0) if pairs else (5.0, 15.0))
    if distill.main([*words, f"--objective.pairs={pairs}", "--output", str(folder / f"run-{time.time_ns()}")]):
        raise SystemExit("the run failed")


def encode(folder: Path) -> int:
    """The pass that fills the cache; its bytes."""
    from accelerate import Accelerator

    from training import families
    from training.cli import parse

    families.build(parse(our_words(folder, 1)).recipe).prepare(Accelerator(cpu=True))
    return sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())


def our_words(folder: Path, steps: int, w: tuple[float, float] = (5.0, 15.0)) -> list[str]:
    """The command line of a run that does what the public script does."""
    fields = {
        "recipe": "sd15",
        "model": folder / "model",
        "model.resolution": SIDE,
        "model.dtype": "fp32",
        "shards": folder / "data.tar",
        "data.cache": folder / "cache",
        "data.min_side": SIDE,
        "data.caption_dropout": 0.0,
        "student.rank": RANK,
        "student.alpha": float(RANK),
        "objective.w_min": w[0],
        "objective.w_max": w[1],
        "training.precision": "no",
        "training.steps": steps,
        "training.batch": BATCH,
        "training.accumulation": 1,
        "training.warmup": 0,
        "checkpoint.every": 0,
        "validation.every": 0,
    }
    words = [f"--{name}={value}" for name, value in fields.items()]
    return [*words, "--memory.no_gradient_checkpointing"]


def train_public(folder: Path, checkout: Path, steps: int, meter: Meter, autocast: bool) -> None:
    """The public script as it is, instrumented."""
    import runpy

    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    meter.count(AutoencoderKL, "encode", "data")
    meter.count(CLIPTextModel, "forward", "data")
    meter.watch()
    if not autocast:
        switch = torch.autocast
        torch.autocast = lambda *args, **options: switch(*args, **options | {"enabled": False})
    options = {
        "pretrained_teacher_model": folder / "model",
        "train_shards_path_or_url": folder / "data.tar",
        "output_dir": folder / f"public-{time.time_ns()}",
        "resolution": SIDE,
        "train_batch_size": BATCH,
        "max_train_samples": PICTURES,
        "max_train_steps": steps,
        "lora_rank": RANK,
        "lora_alpha": RANK,
        "checkpointing_steps": 10**9,
        "validation_steps": 10**9,
        "lr_warmup_steps": 0,
        "mixed_precision": "no",
        "dataloader_num_workers": 1,  # with 0 it divides by zero
        "seed": 0,
    }
    sys.argv = [SCRIPT, *(f"--{name}={value}" for name, value in options.items())]
    runpy.run_path(str(checkout / SCRIPT), run_name="__main__")


class Meter:
    """CPU seconds of the parts of a step, by wrapping what both trainers call; whole steps by the optimiser's."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.parts: list[Counter] = []  # of all the time before each mark
        self.spent: Counter = Counter()
        self.found: dict[str, float] = {}
        self.skipped = 0  # steps at the beginning that are not counted
        self._inside, self._began = 0, 0.0

    def watch(self) -> None:
        import torch
        from diffusers import UNet2DConditionModel
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        self.count(UNet2DConditionModel, "forward", which_network)
        self.count(torch.Tensor, "backward", "backward")
        register_optimizer_step_pre_hook(lambda *_: self._step_begins())
        register_optimizer_step_post_hook(lambda *_: self._step_ends())

    def _step_begins(self) -> None:
        self._began = time.process_time()

    def _step_ends(self) -> None:
        self.marks.append(time.process_time())
        self.spent["optimiser"] += self.marks[-1] - self._began
        self.parts.append(Counter(self.spent))

    def count(self, owner, name: str, part) -> None:
        """Count the time in a method as a part's: a name, or ``part(self) -> name``."""
        setattr(owner, name, self._timed(getattr(owner, name), part))

    def _timed(self, method, part):
        @wraps(method)
        def timed(owner, *args, **options):
            with self._in(part if isinstance(part, str) else part(owner)):
                return method(owner, *args, **options)

        return timed

    @contextmanager
    def _in(self, part: str):
        """Time of the outermost part only."""
        self._inside += 1
        started = time.process_time()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self.spent[part] += time.process_time() - started

    def per_step(self) -> dict[str, float]:
        """CPU seconds of a step and of its parts, between the first and the last optimiser step; before those that are
        counted the teacher's, "pool"."""
        marks, parts = self.marks[self.skipped :], self.parts[self.skipped :]
        if len(marks) < 2:
            return {}
        count = len(marks) - 1
        spent = parts[-1] - parts[0]
        found = {part: spent[part] / count for part in PARTS}
        whole = (marks[-1] - marks[0]) / count
        return found | {"cpu": whole, "rest": whole - sum(found.values()), "pool": parts[0]["teacher"]}


def which_network(unet) -> str:
    """What a UNet's evaluation is part of: the student's has a gradient, the teacher's no adapters."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    if torch.is_grad_enabled():
        return "student forward"
    adapter = next((module for module in unet.modules() if isinstance(module, BaseTunerLayer)), None)
    return "teacher" if adapter is None or adapter.disable_adapters else "target"


def import_libraries() -> float:
    """Import what both trainers are built on; the MiB that the process has then."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    from diffusers import UNet2DConditionModel  # noqa: F401
    from transformers import CLIPTextModel  # noqa: F401

    return peak_mib()


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# ---- model and data ----


def write_model(folder: Path) -> None:
    """A diffusers folder of SD 1.5's kind with random weights; latents are an eighth of the picture, as SD's are."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from training.models.vocabulary import tokenizers

    torch.manual_seed(0)
    parts = {
        "unet": UNet2DConditionModel(
            sample_size=SIDE // 8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
        ),
        "vae": AutoencoderKL(
            block_out_channels=(16, 16, 32, 32),
            norm_num_groups=16,
            layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            sample_size=SIDE,
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(hidden_size=32, intermediate_size=128, num_attention_heads=4, num_hidden_layers=5)
        ),
        "tokenizer": tokenizers("sd15")[0],
        "scheduler": DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {name: [type(part).__module__.partition(".")[0], type(part).__name__] for name, part in parts.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"} | index))


def write_shard(path: Path) -> None:
    """Pictures of noise with captions, more than a run reads: the public loader stops at a shard's end."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as shard:
        for number in range(PICTURES):
            file = BytesIO()
            Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, "JPEG")
            for end, data in (("jpg", file.getvalue()), ("txt", f"picture number {number}".encode())):
                entry = tarfile.TarInfo(f"{number:05}.{end}")
                entry.size = len(data)
                shard.addfile(entry, BytesIO(data))


if __name__ == "__main__":
    run(**json.loads(sys.argv[1]))
