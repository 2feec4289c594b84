"""The model files that the example workflows name: where they belong, where they come from, under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

HUGGING_FACE = "https://huggingface.co"
HYPER_SD = "ByteDance's licence with rules of use (LICENSE.md there)"


@dataclass(frozen=True)
class File:
    """A file under the name that ComfyUI is to list it by; `repository` "" for one of the user's own."""

    name: str
    folder: str
    repository: str
    path: str
    licence: str

    @property
    def page(self) -> str:
        return f"{HUGGING_FACE}/{self.repository}"

    def as_model(self) -> dict[str, str]:
        """What the front end needs to download it."""
        url = f"{self.page}/resolve/main/{self.path}?download=true"
        return {"name": self.name, "url": url, "directory": self.folder}

    def __str__(self) -> str:
        """A line of a note."""
        where = f"- `{self.name}` in `models/{self.folder}`"
        if not self.repository:
            return f"{where}: {self.licence}"
        renamed = "" if PurePosixPath(self.path).name == self.name else f": its `{self.path}`, renamed"
        return f"{where}, from [{self.repository}]({self.page}){renamed}. {self.licence}"


def _file(folder: str, repository: str, path: str, licence: str, name: str = "") -> File:
    return File(name or PurePosixPath(path).name, folder, repository, path, licence)


SD15 = _file(
    "checkpoints",
    "Comfy-Org/stable-diffusion-v1-5-archive",
    "v1-5-pruned-emaonly-fp16.safetensors",
    "CreativeML Open RAIL-M",
)
SDXL = _file(
    "checkpoints",
    "stabilityai/stable-diffusion-xl-base-1.0",
    "sd_xl_base_1.0.safetensors",
    "CreativeML Open RAIL++-M",
)
ANIMAGINE = _file(
    "checkpoints",
    "cagliostrolab/animagine-xl-3.0",
    "animagine-xl-3.0.safetensors",
    "Fair AI Public License 1.0-SD: changes to the model must be shared",
)
SD3 = _file(
    "checkpoints",
    "stabilityai/stable-diffusion-3-medium",
    "sd3_medium_incl_clips_t5xxlfp8.safetensors",
    "Stability AI Community License, to be accepted on that page before the download",
)
FLUX = _file(
    "checkpoints",
    "Comfy-Org/flux1-dev",
    "flux1-dev-fp8.safetensors",
    "FLUX.1 [dev] Non-Commercial License",
)
TCD15 = _file("loras", "h1t/TCD-SD15-LoRA", "pytorch_lora_weights.safetensors", "MIT", "tcd-sd15-lora.safetensors")
TCDXL = _file("loras", "h1t/TCD-SDXL-LoRA", "pytorch_lora_weights.safetensors", "MIT", "tcd-sdxl-lora.safetensors")
HYPER_1 = _file("loras", "ByteDance/Hyper-SD", "Hyper-SDXL-1step-lora.safetensors", HYPER_SD)
HYPER_8 = _file("loras", "ByteDance/Hyper-SD", "Hyper-SDXL-8steps-lora.safetensors", HYPER_SD)
HYPER_SD3 = _file("loras", "ByteDance/Hyper-SD", "Hyper-SD3-4steps-CFG-lora.safetensors", HYPER_SD)
HYPER_FLUX = _file(
    "loras",
    "ByteDance/Hyper-SD",
    "Hyper-FLUX.1-dev-8steps-lora.safetensors",
    "FLUX.1 [dev] Non-Commercial License (LICENSE.md there)",
)
PAPERCUT = _file("loras", "TheLastBen/Papercut_SDXL", "papercut.safetensors", "CreativeML Open RAIL-M")
CANNY = _file(
    "controlnet",
    "comfyanonymous/ControlNet-v1-1_fp16_safetensors",
    "control_v11p_sd15_canny_fp16.safetensors",
    "OpenRAIL",
)
DEPTH = _file(
    "controlnet",
    "diffusers/controlnet-depth-sdxl-1.0",
    "diffusion_pytorch_model.fp16.safetensors",
    "CreativeML Open RAIL++-M",
    "controlnet-depth-sdxl-1.0.fp16.safetensors",
)
IP_ADAPTER = _file("ipadapter", "h94/IP-Adapter", "sdxl_models/ip-adapter_sdxl_vit-h.safetensors", "Apache-2.0")
CLIP_VISION = _file(
    "clip_vision",
    "h94/IP-Adapter",
    "models/image_encoder/model.safetensors",
    "Apache-2.0",
    "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
)
MY_MODEL = File("my-model.safetensors", "checkpoints", "", "", "your checkpoint")
MY_LORA = File("tcd_my-model.safetensors", "loras", "", "", "what the trainer made of it")

FILES = {value.name: value for value in list(globals().values()) if isinstance(value, File)}
