"""The list of this pack's nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .custom_sampling import Sampler, Scheduler
from .gamma import GammaPatch, GammaScheduleNode
from .grid import Grid
from .ksampler import KSampler, KSamplerAdvanced
from .lora_loader import LoraLoader


class TCDToolkitExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [KSampler, KSamplerAdvanced, LoraLoader, Sampler, Scheduler, GammaScheduleNode, GammaPatch, Grid]
