"""Takes the two help pictures that show the front end itself, web/docs/img/gamma_patch.png and lora_loader.png.

python docs/shoot_help.py       (needs what the tests in tests/browser need: a ComfyUI, Chromium and playwright)

Checkpoint and LoRA are small stand-ins with random weights; only their names and the report on them are seen.
"""

import shutil
from pathlib import Path

import torch
from front_end import REPOSITORY, opened
from PIL import Image
from safetensors.torch import save_file

import ui  # isort: skip
from host_support import tiny_checkpoints  # isort: skip

CHECKPOINT, LORA = "my-model.safetensors", "tcd_my-model.safetensors"
TOLD = {
    "tcd.form": "tcf1",
    "tcd.training_span": "k=20, N=1000, s in [0, t_n]",
    "tcd.steps": "4",
    "tcd.gamma": "0.3",
    "tcd.cfg": "1",
}
RANK = 64
WIDTH = 280  # of the nodes: the help panel is about as wide
SCALE = 1.6  # screen pixels per CSS pixel
CORNER = (500, 200)  # of the canvas, where the graph's point (0, 0) is put


def write_lora(file: Path) -> None:
    """A LoRA for every attention projection of the stand-in network."""
    prefix, tensors = "model.diffusion_model.", {}
    for key, weight in tiny_checkpoints.state_dict("sd15").items():
        if key.startswith(prefix) and ".attn" in key and weight.ndim == 2:
            module = "lora_unet_" + key.removeprefix(prefix).removesuffix(".weight").replace(".", "_")
            tensors[f"{module}.lora_down.weight"] = torch.full((RANK, weight.shape[1]), 0.01)
            tensors[f"{module}.lora_up.weight"] = torch.full((weight.shape[0], RANK), 0.01)
            tensors[f"{module}.alpha"] = torch.tensor(float(RANK))
    save_file(tensors, file, metadata=TOLD)


def node(number: int, kind: str, place: tuple[int, int], size: tuple[int, int], inputs=(), outputs=(), values=()):
    """A node as the front end saves it: inputs are (name, type, link), outputs (name, type, links)."""
    return {
        "id": number,
        "type": kind,
        "pos": list(place),
        "size": list(size),
        "flags": {},
        "order": number,
        "mode": 0,
        "inputs": [{"name": name, "type": what, "link": link} for name, what, link in inputs],
        "outputs": [{"name": name, "type": what, "links": list(links)} for name, what, links in outputs],
        "properties": {"Node name for S&R": kind},
        "widgets_values": list(values),
    }


def workflow(nodes: list[dict], links: list[list]) -> dict:
    return {"last_node_id": 9, "last_link_id": 9, "nodes": nodes, "links": links, "version": 0.4}


def checkpoint() -> dict:
    """The loader, at the left of the picture and outside it."""
    outputs = [("MODEL", "MODEL", [1]), ("CLIP", "CLIP", []), ("VAE", "VAE", [])]
    return node(1, "CheckpointLoaderSimple", (-360, 0), (270, 100), outputs=outputs, values=[CHECKPOINT])


def gamma_patch() -> dict:
    patch = [("model", "MODEL", 1), ("gamma_schedule", "TCD_GAMMA", None)]
    sampler = [("model", "MODEL", 2), ("positive", "CONDITIONING", None), ("negative", "CONDITIONING", None)]
    sampler.append(("latent_image", "LATENT", None))
    values = [7, "fixed", 4, 1, "tcd", "tcd", 1]
    nodes = [
        checkpoint(),
        node(2, "TCDToolkit_GammaPatch", (0, 0), (WIDTH, 102), patch, [("MODEL", "MODEL", [2])], [0.3, "1"]),
        node(3, "KSampler", (0, 150), (WIDTH, 262), sampler, [("LATENT", "LATENT", [])], values),
    ]
    return workflow(nodes, [[1, 1, 0, 2, 0, "MODEL"], [2, 2, 0, 3, 0, "MODEL"]])


def lora_loader() -> dict:
    made = [("MODEL", "MODEL", []), ("report", "STRING", [2])]
    nodes = [
        checkpoint(),
        node(2, "TCDToolkit_LoraLoader", (0, 0), (WIDTH, 102), [("model", "MODEL", 1)], made, [LORA, 1]),
        node(3, "PreviewAny", (0, 150), (WIDTH, 170), [("source", "*", 2)], [("STRING", "*", [])]),
    ]
    return workflow(nodes, [[1, 1, 0, 2, 0, "MODEL"], [2, 2, 1, 3, 0, "*"]])


def shoot(page, graph: dict, height: int, name: str, run: bool = False) -> None:
    """Load a graph, run it if wanted, and save the part of the canvas that it takes."""
    ui.load(page, graph)
    ui.view(page, 1, *CORNER)
    if run:
        ui.queue(page)
        shown = "() => app.graph._nodes.some(n => n.widgets?.some(w => String(w.value).includes('matched')))"
        page.wait_for_function(shown)
        page.wait_for_timeout(500)
    file = REPOSITORY / "web" / "docs" / "img" / f"{name}.png"
    box = page.evaluate("(({x, y}) => ({x, y}))(app.canvas.canvas.getBoundingClientRect())")
    left, top = box["x"] + CORNER[0] - 24, box["y"] + CORNER[1] - 62
    clip = {"x": left, "y": top, "width": WIDTH + 48, "height": height + 84}
    page.screenshot(path=file, clip=clip)
    Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)


def models(folder: Path) -> None:
    """Checkpoint and LoRA under a user's names."""
    made = tiny_checkpoints.write("sd15", folder / "checkpoints")
    shutil.move(made, made.with_name(CHECKPOINT))
    write_lora(folder / "loras" / LORA)


def main() -> None:
    with opened(models, viewport={"width": 1400, "height": 700}, device_scale_factor=SCALE) as page:
        shoot(page, gamma_patch(), 412, "gamma_patch")
        shoot(page, lora_loader(), 320, "lora_loader", run=True)


if __name__ == "__main__":
    main()
