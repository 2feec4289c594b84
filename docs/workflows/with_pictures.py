"""TCD LoRAs with a picture as input: img2img, inpainting, ControlNet, IP-Adapter."""

from __future__ import annotations

from collections.abc import Callable

from canvas import OURS, Canvas, out
from files import CANNY, CLIP_VISION, DEPTH, IP_ADAPTER, SD15, SDXL, TCD15, TCDXL, File
from parts import AUTHORS, SIZE, SIZE_XL, few_steps, ksampler, model, note, picture, prompts, size


def loaded_picture(c: Canvas, title: str = "Picture") -> dict:
    with c.group(title):
        return c.add("LoadImage", image="example.png")


def scaled(c: Canvas, image: dict, side: int) -> dict:
    return c.add("ImageScale", image=image, upscale_method="lanczos", width=side, height=side, crop="center")


def image_to_image(c: Canvas) -> None:
    note(
        c,
        "img2img",
        [SD15, TCD15],
        "Picture: `example.png`, a drawing that ComfyUI brings along. Choose your own in Load Image.",
        "denoise is diffusers' `strength`: exactly 4 steps are run, from a lower noise level. 0.6 keeps the drawing's "
        "layout and colours and repaints the rest. In the stock KSampler denoise means something else.",
        tries=["denoise 0.4 to keep more, 0.8 to keep less", "γ 0 stays nearer to the picture", "8 steps"],
    )
    loaded = model(c, SD15)
    image = loaded_picture(c)
    c.column()
    patched = few_steps(c, loaded, TCD15)
    text = "oil painting of a girl with fox ears in a pink dress on a green hill, arms wide, blue sky, soft light"
    conditions = prompts(c, out(loaded, "CLIP"), text)
    with c.group("To a latent of 512 × 512"):
        pixels = scaled(c, image, 512)
        c.column()
        latent = c.add("VAEEncode", wide=225, pixels=pixels, vae=out(loaded, "VAE"))
    c.column()
    with c.group("Sampling", OURS):
        sampled = ksampler(c, patched, *conditions, latent, denoise=0.6)
    picture(c, sampled, out(loaded, "VAE"))


def inpainting(c: Canvas) -> None:
    note(
        c,
        "Inpainting",
        [SD15, TCD15],
        "Picture: `example.png`, which ComfyUI brings along; the mask is a rectangle over the dress. What the mask "
        "keeps comes out exactly as it was, at every γ.",
        "8 steps and γ 0.3 are the LoRA authors' example of inpainting. denoise 0.8 lets the colours that are there "
        "show through; at 1 the region is made up anew.",
        tries=[
            "your own mask: right-click Load Image, Open in MaskEditor, and connect its MASK",
            "an inpainting checkpoint: the conditioning node serves it too, with denoise 0.99",
        ],
    )
    loaded = model(c, SD15)
    image = loaded_picture(c)
    with c.group("Mask: a rectangle"):
        keep = c.add("SolidMask", "Keep", value=0.0, width=512, height=512)
        paint = c.add("SolidMask", "Repaint", value=1.0, width=170, height=240)
    c.column()
    patched = few_steps(c, loaded, TCD15)
    with c.group("512 × 512"):
        pixels = scaled(c, image, 512)
    text = "a child's drawing of a girl in a chequered blue dress on a green hill, felt-tip pen"
    positive, negative = prompts(c, out(loaded, "CLIP"), text)
    with c.group("Where"):
        mask = c.add("MaskComposite", destination=keep, source=paint, x=170, y=210, operation="add")
    c.column()
    c.y += 150
    with c.group("Picture and mask"):
        links = {"positive": positive, "negative": negative, "vae": out(loaded, "VAE"), "pixels": pixels, "mask": mask}
        ready = c.add("InpaintModelConditioning", wide=260, noise_mask=True, **links)
    c.column()
    with c.group("Sampling", OURS):
        inputs = (out(ready, name) for name in ("positive", "negative", "latent"))
        sampled = ksampler(c, patched, *inputs, steps=8, denoise=0.8)
    picture(c, sampled, out(loaded, "VAE"))


def controlled(
    c: Canvas,
    files: tuple[File, File, File],
    title: str,
    guide_of: Callable[[dict], dict],
    text: str,
    strength: float,
    sides: tuple[int, int],
) -> None:
    """The whole graph after the note; `guide_of` adds what makes the guiding picture of the loaded one."""
    checkpoint, lora, control = files
    loaded = model(c, checkpoint)
    image = loaded_picture(c, title)
    c.column()
    patched = few_steps(c, loaded, lora)
    with c.group("ControlNet"):
        net = c.add("ControlNetLoader", control_net_name=control.name)
    guide = guide_of(image)
    positive, negative = prompts(c, out(loaded, "CLIP"), text)
    c.column()
    c.y += 150
    with c.group("Guided"):
        links = {"positive": positive, "negative": negative, "control_net": net, "image": guide}
        span = {"start_percent": 0.0, "end_percent": 1.0}
        ready = c.add("ControlNetApplyAdvanced", wide=260, strength=strength, **span, **links)
        c.add("PreviewImage", "What guides", wide=260, tall=-60, images=guide)
    latent = size(c, sides, wide=260)
    c.column()
    with c.group("Sampling", OURS):
        sampled = ksampler(c, patched, out(ready, "positive"), out(ready, "negative"), latent)
    picture(c, sampled, out(loaded, "VAE"))


def controlnet_canny(c: Canvas) -> None:
    files = (SD15, TCD15, CANNY)
    note(
        c,
        "Canny ControlNet",
        list(files),
        "Picture: `example.png`, which ComfyUI brings along. ComfyUI's own Canny node finds its edges, the ControlNet "
        "follows them.",
        f"{AUTHORS} They hold with a ControlNet too.",
        tries=[
            "strength 0.5 to 0.8: the edges become hints",
            "end_percent 0.6: the last steps are free",
            "lower thresholds in Canny for a photo",
        ],
    )

    def edges(image: dict) -> dict:
        with c.group("Edges"):
            return c.add("Canny", image=image, low_threshold=0.4, high_threshold=0.8)

    text = "a porcelain figurine of a girl with fox ears on a green hill, studio photo"
    controlled(c, files, "Picture", edges, text, 1.0, SIZE)


def controlnet_depth(c: Canvas) -> None:
    files = (SDXL, TCDXL, DEPTH)
    note(
        c,
        "Depth ControlNet",
        list(files),
        "**Load a depth map** in Load Image: near is light, far is dark. `example.png`, which stands there until then, "
        "is none. ComfyUI's template *Lotus Depth* makes one of a photo with stock nodes.",
        "4 steps, γ 0.3, cfg 1 and strength 0.5 are the LoRA authors' example with this very ControlNet.",
        tries=["strength 0.3 to 0.8", "end_percent 0.6: the last steps are free"],
    )

    def depth(image: dict) -> dict:
        with c.group("1024 × 1024"):
            return scaled(c, image, 1024)

    text = "a lecture hall full of astronauts, seen from the back row, photorealistic"
    controlled(c, files, "Depth map", depth, text, 0.5, SIZE_XL)


def ip_adapter(c: Canvas) -> None:
    note(
        c,
        "IP-Adapter: a picture as prompt",
        [SDXL, TCDXL, IP_ADAPTER, CLIP_VISION],
        "Needs the node pack [ComfyUI_IPAdapter_plus](https://github.com/cubiq/ComfyUI_IPAdapter_plus) (in ComfyUI "
        "Manager: *ComfyUI_IPAdapter_plus*). It finds the last two files by their names: they must be exactly these.",
        "4 steps, γ 0.3, cfg 1 and weight 0.5 are the LoRA authors' example. The LoRA comes before the adapter. "
        "Picture: `example.png`, which ComfyUI brings along; a photo of one thing works best.",
        tries=["weight 0.3 to 0.8", "weight_type `style transfer`: its style, not its content", "preset PLUS"],
    )
    loaded = model(c, SDXL)
    image = loaded_picture(c)
    c.column()
    patched = few_steps(c, loaded, TCDXL)
    c.column()
    with c.group("IP-Adapter (another pack)"):
        found = {"models": [file.as_model() for file in (IP_ADAPTER, CLIP_VISION)]}  # by the preset, not by a widget
        preset = "STANDARD (medium strength)"
        adapter = c.add("IPAdapterUnifiedLoader", wide=280, properties=found, model=patched, preset=preset)
        c.column()
        beside = c.x
        links = {"model": out(adapter, "model"), "ipadapter": out(adapter, "ipadapter"), "image": image}
        span = {"start_at": 0.0, "end_at": 1.0, "weight_type": "standard"}
        adapted = c.add("IPAdapter", wide=300, weight=0.5, **span, **links)
    c.x = beside - 20
    text = "a girl on a green hill under a blue sky, children's book illustration, best quality"
    conditions = prompts(c, out(loaded, "CLIP"), text, wide=300)
    latent = size(c, SIZE_XL, wide=300)
    c.column()
    with c.group("Sampling", OURS):
        sampled = ksampler(c, adapted, *conditions, latent)
    picture(c, sampled, out(loaded, "VAE"))
