"""Draws the example workflows' thumbnails: `python docs/workflows/draw.py` (needs what ../front_end.py needs).

Each shows the graph as the front end draws it, without its note and without any picture that a model made, and under
it, larger, the node that the workflow is about.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from front_end import opened, ui  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
MARGIN, BARS = 30, 100  # around the graph; the front end's own bars, left and on top
SIDE, STRIP, LINE = 720, 400, 12  # of the thumbnail, of the graph in it at most, between graph and detail
BACKGROUND = (20, 20, 20)
LARGEST = 58_000  # bytes
ABOUT = (  # the first of these that a workflow has is what it is about
    "TCDToolkit_Grid",
    "TCDToolkit_GammaSchedule",
    "TCDToolkit_GammaPatch",
    "IPAdapter",
    "ControlNetApplyAdvanced",
    "InpaintModelConditioning",
    "LoraLoader",
    "KSampler",
    "TCDToolkit_KSampler",
)
MOVE = """([x, y]) => {
    const canvas = window.app.canvas, box = canvas.canvas.getBoundingClientRect();
    canvas.ds.scale = 1;
    canvas.ds.offset = [x - box.left, y - box.top];
    canvas.setDirty(true, true);
}"""


def photograph(page, workflow: dict, note: bool = False) -> tuple[Image.Image, int, int]:
    """The graph at its own size, and the graph's coordinates of the picture's corner."""
    boxes = [group["bounding"] for group in workflow["groups"]]
    boxes += [[*node["pos"], *node["size"]] for node in workflow["nodes"] if note and node["type"] == "MarkdownNote"]
    left, top = (min(box[i] for box in boxes) - MARGIN for i in (0, 1))
    right, bottom = (max(box[i] + box[i + 2] for box in boxes) + MARGIN for i in (0, 1))
    width, height = right - left, bottom - top
    page.set_viewport_size({"width": width + 2 * BARS, "height": height + 2 * BARS})
    ui.load(page, workflow)
    assert not ui.dialogs(page), "a dialog lies over the graph"
    page.evaluate(MOVE, [BARS - left, BARS - top])
    page.wait_for_timeout(700)
    clip = {"x": BARS, "y": BARS, "width": width, "height": height}
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB"), left, top


def card(workflow: dict, picture: Image.Image, left: int, top: int) -> Image.Image:
    """The whole graph above, the node that it is about below."""
    strip = picture.copy()
    strip.thumbnail((SIDE, STRIP), Image.LANCZOS)
    whole = Image.new("RGB", (SIDE, SIDE), BACKGROUND)
    whole.paste(strip, ((SIDE - strip.width) // 2, 0))
    height = SIDE - strip.height - LINE
    named = [[node for node in workflow["nodes"] if node["type"] == name] for name in ABOUT]
    node = next(nodes[0] for nodes in named if nodes)
    (x, y), (wide, tall) = node["pos"], node["size"]
    x, y = x - left + wide // 2 - SIDE // 2, y - top + tall - height + 2 * MARGIN if tall > height else y - top - 90
    x, y = (max(0, min(value, limit)) for value, limit in ((x, picture.width - SIDE), (y, picture.height - height)))
    whole.paste(picture.crop((x, y, x + SIDE, y + height)), (0, strip.height + LINE))
    return whole


def stand_in() -> bytes:
    """What Load Image shows: a hill and a sun, in place of whatever picture lies on that machine."""
    picture = Image.new("RGB", (256, 256), "#7aa5c9")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((170, 30, 220, 80), fill="#f3d36b")
    draw.ellipse((-80, 140, 340, 520), fill="#7ba05b")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def jpeg(picture: Image.Image) -> bytes:
    """As good as LARGEST allows."""
    for quality in range(88, 20, -4):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= LARGEST:
            break
    return file.getvalue()


def main(large: Path | None = None) -> None:
    """Thumbnails into example_workflows; where a folder is named, whole graphs as PNG into it as well."""
    with opened(settings={"Comfy.Workflow.ShowMissingNodesWarning": False}) as page:
        page.route("**/view?*example.png*", lambda route: route.fulfill(body=stand_in(), content_type="image/png"))
        for file in sorted(FOLDER.glob("*.json")):
            workflow = json.loads(file.read_text(encoding="utf-8"))
            drawn = photograph(page, workflow)
            if missing := {node["type"] for node in ui.nodes(page) if node["unknown"]}:
                print(f"{file.stem} stays as it is: {', '.join(sorted(missing))} must be installed to draw it")
                continue
            file.with_suffix(".jpg").write_bytes(jpeg(card(workflow, *drawn)))
            if large:
                photograph(page, workflow, note=True)[0].save(large / f"{file.stem}.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
