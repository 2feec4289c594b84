"""Nodes that only tests use: inputs without a text encoder, outputs without rounding, a model that can be watched.

Runs inside the host, installed beside the pack; written in the old node style, which every version of the host takes.
"""

import json
import os
import sys
import threading
import time
import uuid

import folder_paths
import torch
from comfy.patcher_extension import WrappersMP
from safetensors.torch import load_file, save_file

CALLS: dict[str, list[dict]] = {}


def end_with_parent():
    """End this server when the tests' process is gone: then the pipe that is our standard input closes."""

    def wait():
        while sys.stdin.buffer.read(1):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


if os.environ.get("TCD_TEST_EXIT_WITH_PARENT"):
    end_with_parent()


def seeded(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integer(default, least=0):
    return ("INT", {"default": default, "min": least, "max": 2**63 - 1})


class Conditioning:
    """A random but fixed conditioning of any width; pooled_output only where its width is not 0."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "width": integer(768, 1),
                "tokens": integer(8, 1),
                "seed": integer(0),
                "pooled_width": integer(0),
            }
        }

    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "TCD tests"

    def make(self, width, tokens, seed, pooled_width):
        extra = {"pooled_output": seeded(seed + 1_000_000, 1, pooled_width)} if pooled_width else {}
        return ([[seeded(seed, 1, tokens, width), extra]],)


class Latent:
    """A random latent: what img2img and inpainting start from without a picture's rounding."""

    @classmethod
    def INPUT_TYPES(cls):
        sizes = {"batch": integer(1, 1), "channels": integer(4, 1), "height": integer(8, 1), "width": integer(8, 1)}
        return {"required": {"seed": integer(0), **sizes, "scale": ("FLOAT", {"default": 1.0, "min": 0.0})}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "make", "TCD tests"

    def make(self, seed, batch, channels, height, width, scale):
        return ({"samples": scale * seeded(seed, batch, channels, height, width)},)


class LoadLatent:
    """The tensor "samples" (and "noise_mask" if there) of a safetensors file in the input folder."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"file": ("STRING", {"default": ""})}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "load", "TCD tests"

    def load(self, file):
        return (load_file(os.path.join(folder_paths.get_input_directory(), file)),)


class SaveLatent:
    """Writes a latent to the output folder as it is."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",), "name": ("STRING", {"default": "latent"})}}

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "save", "TCD tests", True

    def save(self, samples, name):
        file = f"{name}_{uuid.uuid4().hex}.safetensors"
        tensors = {key: samples[key].contiguous() for key in ("samples", "noise_mask") if key in samples}
        save_file(tensors, os.path.join(folder_paths.get_output_directory(), file))
        return {"ui": {"tcd_latent": [file]}}


class ShowText:
    """Hands a text to the client."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"forceInput": True})}}

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "show", "TCD tests", True

    def show(self, text):
        return {"ui": {"text": [text]}}


class SlowModel:
    """A model each of whose evaluations takes some milliseconds more and is noted under `name`."""

    @classmethod
    def INPUT_TYPES(cls):
        inputs = {"model": ("MODEL",), "milliseconds": integer(0), "name": ("STRING", {"default": "calls"})}
        return {"required": inputs}

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "patch", "TCD tests"

    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")  # counting starts anew with every run

    def patch(self, model, milliseconds, name):
        calls = CALLS[name] = []

        def evaluate(executor, x, t, *args, **kwargs):
            options = kwargs.get("transformer_options") or next((a for a in args if isinstance(a, dict)), {})
            kinds = list(options.get("cond_or_uncond", []))
            calls.append({"batch": x.shape[0], "time": float(t.flatten()[0]), "cond_or_uncond": kinds})
            time.sleep(milliseconds / 1000)
            return executor(x, t, *args, **kwargs)

        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, f"tcd_test_{name}", evaluate)
        return (patched,)


class CallCount:
    """What SlowModel has noted by the time this latent exists; hands the latent on."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",), "name": ("STRING", {"default": "calls"})}}

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = ("LATENT",), "count", "TCD tests", True

    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")

    def count(self, samples, name):
        calls = CALLS.get(name, [])
        columns = {"batches": "batch", "times": "time", "cond_or_uncond": "cond_or_uncond"}
        report = {"evaluations": len(calls), **{many: [call[one] for call in calls] for many, one in columns.items()}}
        return {"ui": {"text": [json.dumps(report)]}, "result": (samples,)}


NODE_CLASS_MAPPINGS = {
    f"TCDTest_{node.__name__}": node
    for node in (Conditioning, Latent, LoadLatent, SaveLatent, ShowText, SlowModel, CallCount)
}
