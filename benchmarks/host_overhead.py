"""KSampler (TCD) against the stock KSampler with euler, inside a real ComfyUI, on one tiny UNet.

    python benchmarks/host_overhead.py [--device cuda] [--rounds 15]

Finds ComfyUI as the host tests do (COMFYUI_PATH, else ~/comfy/ComfyUI) and runs itself again under its interpreter.
Prints, for 4, 8 and 50 steps, the ratio of the wall time per step (ours / stock, taken in turns in one run) and the
peak memory beyond the stock sampler's, in latents. On CUDA the steps run under torch.cuda.set_sync_debug_mode("error"):
a synchronisation inside the loop fails the run.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import weakref
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

print = partial(print, flush=True)  # the lines come from a process of its own
BATCH, SIZE = 1, 16  # latents of 1 × 4 × 16 × 16: the smaller the model's share, the harder the test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if os.environ.get("TCD_BENCHMARK_IN_HOST"):
        measure(options)
        return
    from host_support.host import clean_environment, find_host

    host = find_host()
    environment = clean_environment(COMFYUI_PATH=str(host.root), TCD_BENCHMARK_IN_HOST="1")
    subprocess.run([str(host.python), __file__, *sys.argv[1:]], env=environment, check=True)


def measure(options) -> None:
    from host_support import in_host, tiny_checkpoints

    in_host.start_host(cpu=options.device == "cpu")
    import comfy.model_management
    import comfy.sd
    import comfy.utils
    import torch

    comfy.utils.PROGRESS_BAR_ENABLED = False
    ksampler = in_host.load_pack("nodes.ksampler")
    from nodes import common_ksampler  # the host's, which stands first on the path

    with tempfile.TemporaryDirectory() as folder:
        tiny_checkpoints.write("sd15", Path(folder))
        file = Path(folder) / tiny_checkpoints.FAMILIES["sd15"].file
        model = comfy.sd.load_checkpoint_guess_config(str(file), output_vae=False, output_clip=False)[0]
    device = comfy.model_management.get_torch_device()
    cond = [[torch.randn(1, 8, 768, generator=torch.Generator().manual_seed(0)), {}]]
    latent = {"samples": torch.zeros(BATCH, 4, SIZE, SIZE)}

    def ours(steps: int) -> None:
        ksampler.KSampler.execute(model, 1, steps, 1.0, 0.3, cond, cond, latent, 1.0)

    def stock(steps: int) -> None:
        common_ksampler(model, 1, steps, 1.0, "euler", "simple", cond, cond, latent)

    if device.type == "cuda":
        forbid_synchronisation(in_host.load_pack("nodes.sampling"))
    print(f"tiny SD1.5 UNet, {BATCH} × 4 × {SIZE} × {SIZE}, {device}, torch {torch.__version__}")
    for steps in (4, 8, 50):
        for run in (ours, stock):
            run(steps)
        pairs = [(seconds(ours, steps), seconds(stock, steps)) for _ in range(options.rounds)]
        low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
        step_ms = statistics.median(b for _, b in pairs) / steps * 1000
        print(
            f"{steps:3d} steps: KSampler (TCD) / stock euler = {middle:.3f} per step "
            f"(quartiles {low:.3f} … {high:.3f}, {options.rounds} pairs; stock {step_ms:.1f} ms a step)"
        )
    one_latent = latent["samples"].numel() * 4
    extra = peak_bytes(lambda: ours(8), device) - peak_bytes(lambda: stock(8), device)
    print(f"peak memory beyond stock euler's: {extra / one_latent:+.2f} latents")


def forbid_synchronisation(sampling) -> None:
    """Make any synchronisation between the first and the last model evaluation an error."""
    import torch

    loop = sampling.sample

    def guarded(model, *args, **kwargs):
        def unguarded_model(*inputs):  # the host's own model calls may synchronise
            torch.cuda.set_sync_debug_mode("default")
            try:
                return model(*inputs)
            finally:
                torch.cuda.set_sync_debug_mode("error")

        torch.cuda.set_sync_debug_mode("error")
        try:
            return loop(unguarded_model, *args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    sampling.sample = guarded


def seconds(run, steps: int) -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run(steps)  # ends with the copy of the result to the CPU
    return time.perf_counter() - start


def peak_bytes(run, device) -> int:
    """Peak of the bytes held in tensors made during run(); by CUDA's allocator, or on the CPU by watching storages."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before

    class Watch(TorchDispatchMode):
        held, peak, seen = 0, 0, set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            inputs = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    self.note(tensor.untyped_storage(), inputs)
            return result

        def note(self, storage, inputs) -> None:
            key = storage.data_ptr()
            if key in inputs or key in self.seen or not storage.nbytes():
                return
            self.seen.add(key)
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self.release, key, storage.nbytes())

        def release(self, key: int, size: int) -> None:
            self.seen.discard(key)
            self.held -= size

    with Watch() as watch:
        run()
    return watch.peak


if __name__ == "__main__":
    main()
