"""For drivers under the host's interpreter: the host on the CPU, the pack by path, a model on any network."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACK = "tcd_toolkit_in_host"


def start_host(cpu: bool = True) -> None:
    """Put the host first on the path and keep it on the CPU, before any other of its modules is imported."""
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    import comfy.options  # noqa: F401  (args stay those of an empty command line)
    from comfy.cli_args import args

    args.cpu = cpu


def load_pack(name: str = ""):
    """The pack's root, or a module in it such as "nodes.sampling", loaded by path as the host does."""
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACK, REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[PACK] = module
        spec.loader.exec_module(module)
    return importlib.import_module(f"{PACK}.{name}") if name else sys.modules[PACK]


def model_on(network, prediction: str = "epsilon"):
    """A ModelPatcher of the host's SD1.5-type model whose network is ``network(x, t) -> output``.

    x arrives in VP coordinates, t as the integer training time the host chose.
    """
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    class Network(torch.nn.Module):
        dtype = torch.float32

        def __init__(self, **_):
            super().__init__()

        def forward(self, x, timesteps, context=None, **_):
            return network(x, int(timesteps[0]))

    config = comfy.supported_models.SD15({"context_dim": 768})
    config.set_inference_dtype(torch.float32, None)
    types = comfy.model_base.ModelType
    kind = types.EPS if prediction == "epsilon" else types.V_PREDICTION
    model = comfy.model_base.BaseModel(config, model_type=kind, device="cpu", unet_model=Network)
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def conditioning():
    """An empty conditioning for networks that look at none."""
    import torch

    return [[torch.zeros(1, 1, 768), {}]]
