"""A graph in the front end's own format, laid out while it is built: columns from left to right, titled groups in them.

`Canvas.add` puts a node under the one before, `column` begins a column to the right, `group` frames what is added in
it. A node's inputs are given by name: an `Output` (or a node, for its first output) is a link, anything else a value.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from files import FILES

TITLE, GROUP_TITLE, PAD, SPACE, WIRES = 30, 56, 20, 24, 50  # pixels; WIRES: between columns
PLOT, TEXT, PICTURE = 190, 96, 380  # room for a gamma plot, a prompt, a picture
# what newer front ends add to a node: under one whose file is missing, under a pack's nodes, to each widget
ISSUES, BADGE, TALLER = 36, 24, 4
PLAIN, OURS = "#3f789e", "#8a6d3b"  # colours of groups
TINTS = {"Positive prompt": ("#232", "#353"), "Negative prompt": ("#322", "#533"), "Read me": ("#432", "#2e2820")}

# node type: (links in, widgets in their order, outputs, extra height); "seed!" is followed by "control after generate"
NODES = {
    "CheckpointLoaderSimple": ("", "ckpt_name", "MODEL CLIP VAE", 0),
    "ControlNetLoader": ("", "control_net_name", "CONTROL_NET", 0),
    "LoraLoader": ("model:MODEL clip:CLIP", "lora_name strength_model strength_clip", "MODEL CLIP", 0),
    "CLIPTextEncode": ("clip:CLIP", "text", "CONDITIONING", TEXT),
    "FluxGuidance": ("conditioning:CONDITIONING", "guidance", "CONDITIONING", 0),
    "ControlNetApplyAdvanced": (
        "positive:CONDITIONING negative:CONDITIONING control_net:CONTROL_NET image:IMAGE vae:VAE",  # vae: SD3, Flux
        "strength start_percent end_percent",
        "positive:CONDITIONING negative:CONDITIONING",
        0,
    ),
    "EmptyLatentImage": ("", "width height batch_size", "LATENT", 0),
    "EmptySD3LatentImage": ("", "width height batch_size", "LATENT", 0),
    "LoadImage": ("", "image", "IMAGE MASK", PICTURE - 50),
    "ImageScale": ("image:IMAGE", "upscale_method width height crop", "IMAGE", 0),
    "Canny": ("image:IMAGE", "low_threshold high_threshold", "IMAGE", 0),
    "SolidMask": ("", "value width height", "MASK", 0),
    "MaskComposite": ("destination:MASK source:MASK", "x y operation", "MASK", 0),
    "InpaintModelConditioning": (
        "positive:CONDITIONING negative:CONDITIONING vae:VAE pixels:IMAGE mask:MASK",
        "noise_mask",
        "positive:CONDITIONING negative:CONDITIONING latent:LATENT",
        0,
    ),
    "VAEEncode": ("pixels:IMAGE vae:VAE", "", "LATENT", 0),
    "VAEDecode": ("samples:LATENT vae:VAE", "", "IMAGE", 0),
    "SaveImage": ("images:IMAGE", "filename_prefix", "", PICTURE),
    "PreviewImage": ("images:IMAGE", "", "", PICTURE - 60),
    "PreviewAny": ("source:*", "", "", 130),
    "KSampler": (
        "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT",
        "seed! steps cfg sampler_name scheduler denoise",
        "LATENT",
        0,
    ),
    "TCDToolkit_LoraLoader": ("model:MODEL", "lora_name strength", "MODEL report:STRING", 0),
    "TCDToolkit_KSampler": (
        "model:MODEL positive:CONDITIONING negative:CONDITIONING latent_image:LATENT "
        "gamma_schedule:TCD_GAMMA sigmas:SIGMAS",
        "seed! steps cfg gamma denoise order",
        "LATENT",
        PLOT,
    ),
    "TCDToolkit_Scheduler": ("model:MODEL", "steps denoise original_steps times", "SIGMAS", 0),
    "TCDToolkit_GammaSchedule": (
        "",
        "shape start end exponent values interpolate",
        "gamma_schedule:TCD_GAMMA",
        PLOT,
    ),
    "TCDToolkit_Grid": (
        "model:MODEL vae:VAE positive:CONDITIONING negative:CONDITIONING latent_image:LATENT",
        "steps gammas cfg denoise order seed! seeds max_cell",
        "grid:IMAGE cells:IMAGE names:STRING",
        0,
    ),
    "TCDToolkit_GammaPatch": ("model:MODEL gamma_schedule:TCD_GAMMA", "gamma order", "MODEL", 0),
    "IPAdapterUnifiedLoader": ("model:MODEL ipadapter:IPADAPTER", "preset", "model:MODEL ipadapter:IPADAPTER", 0),
    "IPAdapter": (
        "model:MODEL ipadapter:IPADAPTER image:IMAGE attn_mask:MASK",
        "weight start_at end_at weight_type",
        "MODEL",
        0,
    ),
    "MarkdownNote": ("", "text", "", 0),
}


@dataclass(frozen=True)
class Output:
    """One of a node's outputs, to be given to another node's input."""

    node: dict
    slot: int


def out(node: dict, name: str) -> Output:
    """A node's output by name."""
    return Output(node, [slot["name"] for slot in node["outputs"]].index(name))


@dataclass
class _Scope:
    """What `column` goes to the right of: the canvas or a group. `top` is where its columns begin."""

    top: int
    right: int
    bottom: int


class Canvas:
    def __init__(self, name: str):
        self.name = name
        self.nodes: list[dict] = []
        self.links: list[list] = []
        self.groups: list[dict] = []
        self.x = self.y = 0
        self._scope = _Scope(0, 0, 0)

    def column(self) -> None:
        """Go on to the right of all that is there, at the top."""
        self.x, self.y = self._scope.right + WIRES, self._scope.top

    @contextmanager
    def group(self, title: str, color: str = PLAIN) -> Iterator[None]:
        """Frame what is added meanwhile; the next group begins under it, in the column where it began."""
        outer, left, top = self._scope, self.x, self.y
        self.x, self.y = left + PAD, top + GROUP_TITLE
        self._scope = inner = _Scope(self.y, self.x, self.y)
        yield
        right, bottom = inner.right + PAD, inner.bottom + PAD
        bounds = [left, top, right - left, bottom - top]
        group = {"id": len(self.groups) + 1, "title": title, "bounding": bounds, "color": color, "font_size": 24}
        self.groups.append({**group, "flags": {}})
        outer.right, outer.bottom = max(outer.right, right), max(outer.bottom, bottom)
        self._scope, self.x, self.y = outer, left, bottom + SPACE

    def add(
        self,
        node_type: str,
        title: str | None = None,
        *,
        wide: int = 340,
        tall: int = 0,
        properties: dict | None = None,
        **given: Any,
    ) -> dict:
        """A node under the one before; `wide`, and `tall` beside what its type takes, in pixels.

        Raises:
            KeyError: an input that is missing, unknown or of another type.
        """
        spec_in, widgets, spec_out, room = NODES[node_type]
        node: dict = {"id": len(self.nodes) + 1, "type": node_type}
        inputs = [self._input(node, slot, spec, given) for slot, spec in enumerate(spec_in.split())]
        outputs = [{"name": name, "type": kind, "links": []} for name, kind in map(_name_and_type, spec_out.split())]
        values, names = [], widgets.split()
        for name in names:
            values += [given.pop(name.rstrip("!"))] + ["fixed"] * name.endswith("!")
        if given:
            raise KeyError(f"{node_type} has no input {', '.join(given)}")
        rows = 20 * max(len(inputs), len(outputs)) + 24 * len(values)
        size = [wide, 14 + rows + room + tall]
        node |= {
            "pos": [self.x, self.y + TITLE],
            "size": size,
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": inputs,
            "outputs": outputs,
            "properties": _properties(node_type, [v for v in values if v in FILES]) | (properties or {}),
            "widgets_values": values,
        }
        if title:
            node["title"] = title
        if (title or "").split(" (")[0] in TINTS:
            node["color"], node["bgcolor"] = TINTS[title.split(" (")[0]]
        self.nodes.append(node)
        self._scope.right = max(self._scope.right, self.x + wide)
        under = ISSUES * any(value in FILES for value in values) + BADGE * node_type.startswith(("TCDT", "IPA"))
        self.y += TITLE + size[1] + under + TALLER * len(values)
        self._scope.bottom = max(self._scope.bottom, self.y)
        self.y += SPACE
        return node

    def json(self) -> str:
        """The file: one line for each node, link and group."""
        extent = self._scope.right, self._scope.bottom
        scale = round(min(1.0, 1700 / extent[0], 850 / extent[1]), 3)
        head = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"tcd-toolkit/{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
        }
        tail = {"config": {}, "extra": {"ds": {"scale": scale, "offset": [100, 120]}}, "version": 0.4}
        lines = [f" {json.dumps(key)}: {_dump(value)}" for key, value in head.items()]
        for key in ("nodes", "links", "groups"):
            items = ",\n".join(f"  {_dump(item)}" for item in getattr(self, key))
            lines.append(f" {json.dumps(key)}: [\n{items}\n ]" if items else f" {json.dumps(key)}: []")
        lines += [f" {json.dumps(key)}: {_dump(value)}" for key, value in tail.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def _input(self, node: dict, slot: int, spec: str, given: dict) -> dict:
        name, kind = _name_and_type(spec)
        link, source = None, given.pop(name, None)
        if source is not None:
            source = source if isinstance(source, Output) else Output(source, 0)
            origin = source.node["outputs"][source.slot]
            if kind not in (origin["type"], "*"):
                raise KeyError(f"{node['type']}.{name} takes {kind}, not {origin['type']}")
            link = len(self.links) + 1
            self.links.append([link, source.node["id"], source.slot, node["id"], slot, origin["type"]])
            origin["links"].append(link)
        return {"name": name, "type": kind, "link": link}


def _name_and_type(spec: str) -> tuple[str, str]:
    name, _, kind = spec.partition(":")
    return name, kind or name


def _properties(node_type: str, files: list[str]) -> dict:
    """What the front end keeps with a node; `models` is where it looks when it offers to download missing files."""
    properties: dict = {} if node_type == "MarkdownNote" else {"Node name for S&R": node_type}
    models = [FILES[name].as_model() for name in files if FILES[name].repository]
    return {**properties, "models": models} if models else properties


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
