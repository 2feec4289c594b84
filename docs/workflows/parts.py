"""What the example workflows share: their note, their groups, the settings of the TCD LoRAs."""

from __future__ import annotations

from typing import Any

from canvas import OURS, Canvas, out
from files import File

SEA = "a lighthouse on a cliff above a stormy sea, dramatic light, highly detailed"
NO_EFFECT = "Negative prompt (no effect at cfg 1)"
AUTHORS = "4 steps, cfg 1, γ 0.3 are what the LoRA's authors use (there `guidance_scale=0` and `eta=0.3`)."
CFG = "Guidance is distilled into the LoRA: cfg stays at 1, so the negative prompt does nothing."
SIZE, SIZE_XL = (512, 512), (1024, 1024)


def note(c: Canvas, title: str, files: list[File], *paragraphs: str, tries: list[str]) -> None:
    """The first column: what the graph does, its files, why it is set as it is, what to try."""
    parts = [f"# {title}", "## Files", "\n".join(map(str, files)), "## Why so", *paragraphs]
    text = "\n\n".join([*parts, "## Try", "\n".join(f"- {text}" for text in tries)])
    lines = sum(1 + len(line) // 66 for line in text.split("\n"))
    c.add("MarkdownNote", "Read me", wide=440, tall=14 * lines + 30, text=text)
    c.column()


def model(c: Canvas, checkpoint: File) -> dict:
    """The checkpoint, in the second column."""
    with c.group("Model"):
        return c.add("CheckpointLoaderSimple", ckpt_name=checkpoint.name)


def few_steps(c: Canvas, before: Any, lora: File, strength: float = 1.0) -> dict:
    """The LoRA loader."""
    with c.group("Few-step LoRA", OURS):
        return c.add("TCDToolkit_LoraLoader", model=before, lora_name=lora.name, strength=strength)


def prompts(c: Canvas, clip: Any, text: str, negative: str = "", title: str = NO_EFFECT, wide: float = 340):
    """(positive, negative) conditioning."""
    with c.group("Prompt"):
        positive = c.add("CLIPTextEncode", "Positive prompt", wide=wide, clip=clip, text=text)
        return positive, c.add("CLIPTextEncode", title, wide=wide, tall=-30, clip=clip, text=negative)


def size(c: Canvas, sides: tuple[int, int], latent: str = "EmptyLatentImage", wide: float = 340) -> dict:
    """An empty latent."""
    with c.group("Size"):
        return c.add(latent, wide=wide, width=sides[0], height=sides[1], batch_size=1)


def report(c: Canvas, lora: dict) -> None:
    """What the LoRA loader says of its file."""
    with c.group("Report"):
        c.add("PreviewAny", "What the LoRA matched", source=out(lora, "report"))


def ksampler(c: Canvas, model: Any, positive: Any, negative: Any, latent: Any, **settings: Any) -> dict:
    """KSampler (TCD) with the TCD LoRAs' settings where not told otherwise."""
    node = {"seed": 42, "steps": 4, "cfg": 1.0, "gamma": 0.3, "denoise": 1.0, "order": "1", **settings}
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    return c.add("TCDToolkit_KSampler", **links, **node)


def stock(c: Canvas, model: Any, positive: Any, negative: Any, latent: Any, **settings: Any) -> dict:
    """The host's own KSampler."""
    node = {"seed": 42, "cfg": 1.0, "denoise": 1.0, **settings}
    return c.add("KSampler", model=model, positive=positive, negative=negative, latent_image=latent, **node)


def decoded(c: Canvas, latent: Any, vae: Any, prefix: str, tall: int = 0) -> None:
    """Decode and save, beside each other."""
    pixels = c.add("VAEDecode", wide=225, samples=latent, vae=vae)
    c.column()
    c.add("SaveImage", wide=400, tall=tall, images=pixels, filename_prefix=prefix)


def picture(c: Canvas, latent: Any, vae: Any) -> None:
    """Decode and save, in the last columns."""
    c.column()
    with c.group("Picture"):
        decoded(c, latent, vae, "TCD")


def text_to_image(c: Canvas, checkpoint: File, lora: File, sides: tuple[int, int], text: str, **settings: Any) -> None:
    """The whole graph after the note: model, LoRA and its report, prompt, size, KSampler (TCD), picture."""
    loaded = model(c, checkpoint)
    c.column()
    patched = few_steps(c, loaded, lora)
    conditions = prompts(c, out(loaded, "CLIP"), text)
    latent = size(c, sides)
    c.column()
    report(c, patched)
    with c.group("Sampling", OURS):
        sampled = ksampler(c, patched, *conditions, latent, **settings)
    picture(c, sampled, out(loaded, "VAE"))
