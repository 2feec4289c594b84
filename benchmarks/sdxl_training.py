"""Training steps of a full-size SDXL UNet on a GPU: samples/s, peak memory, and share of the card's bf16 matrix rate.

    python benchmarks/sdxl_training.py [--batches 1 4 8] [--checkpointing off on] [--compile none blocks] [--steps 5]

The trainer's own objective, optimiser and averages by the recipe sdxl (LoRA of rank 64 on all 788 layers, frozen base
in bf16, guided teacher in one batch with its unconditional half), random weights, latents of 128×128 and text
embeddings from memory: all that a step does but reading the cache. Floating-point operations are counted while a step
runs, those of recomputed activations too; the card's rate is that of a product of two 8192×8192 bf16 matrices.
torch.compile: "blocks" compiles every ResNet and transformer block by itself, "whole" the network (minutes a row).

Then, for the first batch above 1, where a step's time goes: its parts, and on a GPU the kernels.

Without a GPU the same in small: other widths, 32×32 latents, rank 4, float32. Its figures say nothing of SDXL; it shows
that the script runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from itertools import product
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch.utils.flop_counter import FlopCounterMode

from tcd_core import VPSchedule
from training.data.buckets import Size
from training.dry_run import RandomData
from training.families.latent_diffusion import DTYPES, LatentDiffusionFamily, Spec
from training.loop import make_optimizer
from training.models.configs import STANDARD
from training.objective import TrajectoryDistillation
from training.phases import student_settings
from training.recipe import Recipe, load_recipe, replaced

SMALL = {
    "block_out_channels": [32, 64, 64],
    "attention_head_dim": [1, 2, 2],
    "transformer_layers_per_block": [1, 1, 2],
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 64 + 6 * 32,
}
SWITCH = {"off": False, "on": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--checkpointing", nargs="+", choices=SWITCH, default=list(SWITCH))
    parser.add_argument("--compile", nargs="+", choices=("none", "blocks", "whole"), default=["none", "blocks"])
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each setting, after two untimed ones")
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    bench = Bench(cuda)
    print(bench.said())
    print(
        "\n| batch | checkpointing | torch.compile | samples/s | ms/step | peak GB | TFLOP/sample | TFLOP/s | share |"
    )
    print("|" + " --- |" * 9)
    settings = product(options.compile, options.checkpointing, options.batches)
    if not cuda:  # compilation takes longer than all the rest
        settings = [(how, *others) for how, *others in settings if how == "none" or others == ["off", 1]]
    for how, checkpointing, batch in settings:
        row = bench.measure(batch, SWITCH[checkpointing], how, options.steps)
        print(f"| {batch} | {checkpointing} | {how} | {row} |", flush=True)
    batch = next((batch for batch in options.batches if batch > 1), options.batches[0])
    print(f"\nWhere it goes: batch {batch}, no checkpointing, not compiled\n")
    print(bench.parts(batch))


class Bench:
    """The network in memory, and the card's rate."""

    def __init__(self, cuda: bool) -> None:
        self.cuda, self.device = cuda, torch.device("cuda" if cuda else "cpu")
        self.side = 1024 if cuda else 256
        self.config = json.loads((STANDARD / "sdxl" / "unet" / "config.json").read_text()) | ({} if cuda else SMALL)
        self.dtype = "bf16" if cuda else "fp32"
        self.rate = matrix_rate(self.device, DTYPES[self.dtype], 8192 if cuda else 1024)
        self.network: UNet2DConditionModel | None = None
        self.flops: dict[bool, float] = {}

    def said(self) -> str:
        where = torch.cuda.get_device_name() if self.cuda else f"CPU, {torch.get_num_threads()} threads"
        what = (
            "SDXL's UNet at 1024 px" if self.cuda else "NO GPU HERE: a small UNet of SDXL's kind at 256 px, no measure"
        )
        return f"{what}; {where}, torch {torch.__version__}; {self.dtype} matrix product {self.rate / 1e12:.3g} TFLOP/s"

    def measure(self, batch: int, checkpointing: bool, how: str, count: int) -> str:
        """A row's figures; or that it doesn't fit into the card's memory."""
        try:
            return self._measure(batch, checkpointing, how, count)
        except torch.OutOfMemoryError:
            return "does not fit | | | | |"

    def _measure(self, batch: int, checkpointing: bool, how: str, count: int) -> str:
        step = self.step(batch, checkpointing, how)
        if checkpointing not in self.flops:
            self.flops[checkpointing] = self._count(checkpointing)
        step(0)
        step(1)
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for number in range(2, 2 + count):
            started = self.now()
            step(number)
            seconds.append(self.now() - started)
        middle = statistics.median(seconds)
        peak = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if self.cuda else "-"
        flops, rate = self.flops[checkpointing], self.flops[checkpointing] * batch / middle
        return (
            f"{batch / middle:.3g} | {1000 * middle:.0f} | {peak} | {flops / 1e12:.3g} | {rate / 1e12:.3g} | "
            f"{rate / self.rate:.0%}"
        )

    def _count(self, checkpointing: bool) -> float:
        """Floating-point operations of a step per sample, counted on a batch of one."""
        step = self.step(1, checkpointing, "none")
        with FlopCounterMode(display=False) as counter:
            step(0)
        return counter.get_total_flops()

    def step(self, batch: int, checkpointing: bool, how: str):
        """``step(number)``: what the trainer's loop does in an optimiser step."""
        self.task = None  # the one before goes first
        torch._dynamo.reset()
        family = RandomFamily(self._recipe(batch, checkpointing), self.config, self.side, self.device)
        self.task = TrajectoryDistillation(family, family.recipe).to(self.device)
        compiled(family.network, how)
        task, recipe = self.task, family.recipe
        accelerator = Accelerator(cpu=not self.cuda, mixed_precision=recipe.training.precision)
        weights = list(task.trainable().values())
        optimizer = make_optimizer(weights, student_settings(recipe))

        def run(number: int) -> None:
            share = send_to_device(task.draw(number), self.device, non_blocking=True)
            with accelerator.autocast():
                loss = task(share).mean()
            with self.part("backward"):
                loss.backward()
            with self.part("clip, optimiser, averages"):
                torch.nn.utils.clip_grad_norm_(weights, recipe.training.clip)
                optimizer.step()
                optimizer.zero_grad()
                task.after_step()

        return run

    def _recipe(self, batch: int, checkpointing: bool) -> Recipe:
        return replaced(
            load_recipe("sdxl"),
            model={"dtype": self.dtype, "resolution": self.side},
            student={} if self.cuda else {"rank": 4, "alpha": 4.0},
            training={"batch": batch, "accumulation": 1, "precision": "bf16" if self.cuda else "no"},
            memory={"gradient_checkpointing": checkpointing},
        )

    def now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    # -- where the time goes -------------------------------------------------------------------------------------------

    spent: Counter | None = None  # seconds by part, while they are asked for
    counted: Counter | None = None  # floating-point operations
    inside = False

    @contextmanager
    def part(self, name: str):
        """Time and operations of the outermost part."""
        if self.spent is None or self.inside:
            yield
            return
        self.inside, counter = True, FlopCounterMode(display=False) if self.counted is not None else None
        started = self.now()
        try:
            with counter or nullcontext():
                yield
        finally:
            self.inside = False
            self.spent[name] += self.now() - started
            if counter:
                self.counted[name] += counter.get_total_flops()

    def parts(self, batch: int, count: int = 3) -> str:
        """Seconds and rate of a step's parts, each waited for; on a GPU also what its kernels took."""
        step = self.step(batch, False, "none")
        student, task = self.task.student, self.task
        wrapped = ((student, "teacher", "teacher"), (student, "target", "target"), (student, "forward", "student"))
        for owner, name, part in (*wrapped, (task, "draw", "draw")):
            setattr(owner, name, self._within(getattr(owner, name), part))
        step(0)
        self.spent, self.counted = Counter(), Counter()
        step(1)
        flops, self.spent, self.counted = self.counted, Counter(), None
        started = self.now()
        for number in range(2, 2 + count):
            step(number)
        whole, spent = (self.now() - started) / count, {name: s / count for name, s in self.spent.items()}
        self.spent = None
        lines = ["| part | ms | TFLOP | share of the matrix rate |", "| --- | --- | --- | --- |"]
        for name, seconds in [*spent.items(), ("the rest", whole - sum(spent.values()))]:
            share = f"{flops[name] / seconds / self.rate:.0%}" if flops[name] else "-"
            lines.append(f"| {name} | {1000 * seconds:.1f} | {flops[name] / 1e12:.3g} | {share} |")
        return "\n".join([*lines, f"| together | {1000 * whole:.1f} | | |", *self._kernels(step)])

    def _within(self, method, name: str):
        def timed(*args, **options):
            with self.part(name):
                return method(*args, **options)

        return timed

    def _kernels(self, step) -> list[str]:
        if not self.cuda:
            return []
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
            step(9)
            torch.cuda.synchronize()
        table = found.key_averages().table(sort_by="self_device_time_total", row_limit=25, max_name_column_width=90)
        return ["", "Kernels of one step:", table]


class RandomFamily(LatentDiffusionFamily):
    """SDXL with random weights and random data, without any file.

    Args:
        config: the UNet's.  side: of the pictures, px.
    """

    def __init__(self, recipe: Recipe, config: dict, side: int, device: torch.device) -> None:
        self.recipe, self.spec = recipe, Spec("sdxl", "", "", sized=True)
        self.found = SimpleNamespace(configs={"unet": config})
        self.schedule, self.prediction, self.zero_terminal_snr = VPSchedule.scaled_linear(), "epsilon", False
        self.dtype, self.device = DTYPES[recipe.model.dtype], device
        self.network = random_network(config, self.dtype, device)
        if recipe.memory.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()
        self.data = RandomData(self, Size(side, side))


def random_network(config: dict, dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """Made where it stays and in its number format, so that float32 weights never take main memory."""
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return UNet2DConditionModel.from_config(config).train()
    finally:
        torch.set_default_dtype(usual)


def compiled(network: UNet2DConditionModel, how: str) -> None:
    """Compile it in place. Teacher, student and target are three variants of each block, of many shapes."""
    if how == "none":
        return
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 512
    if how == "whole":
        network.compile()
        return
    for module in network.modules():
        if isinstance(module, BasicTransformerBlock | ResnetBlock2D):
            module.compile()


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Floating-point operations per second of a square matrix product, the median of 20."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(25):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(4):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / 4)
    return 2 * size**3 / statistics.median(seconds[5:])


if __name__ == "__main__":
    main()
