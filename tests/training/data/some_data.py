"""Pictures, folders, shards and encoders for the tests of the data: small, drawn by number, in a moment."""

from __future__ import annotations

import io
import struct
import tarfile
import threading
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.data.cache import encode
from training.data.settings import Settings, fingerprint, identity

SETTINGS = Settings(resolution=64, bucket_step=16, min_side=16, teacher_steps=25, teacher_w=7.5)


def drawn(number: int, width: int = 40, height: int = 40) -> Image.Image:
    """A picture like no other number's, smooth, so that JPEG keeps it small."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [128 + 127 * np.sin(x / (3 + c) + number * (c + 1) + y / 7) for c in range(3)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def as_bytes(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def write_folder(folder: Path, count: int, sizes=((40, 40), (60, 30), (30, 60))) -> Path:
    """Pictures 000.png, 001.png, … in turn of the sizes, with captions of which some are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i:03}.png").write_bytes(as_bytes(drawn(i, *sizes[i % len(sizes)])))
        (folder / f"{i:03}.txt").write_text(f"picture of {i // 2}", encoding="utf-8")
    return folder


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(side: int, *more: bytes) -> bytes:
    """A small file that says it is a large square; ``more`` chunks after the header."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = zlib.compress(bytes(min(1_000_000, side * (3 * side + 1))), 9)
    chunks = [png_chunk(b"IHDR", header), *more, png_chunk(b"IDAT", content), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class FakeEncoders:
    """Encoders that are functions of their input and nothing else, and remember what they were asked for."""

    def __init__(self, fingerprint: str = "fake", factor: float = 1.0) -> None:
        self.fingerprint, self.factor = fingerprint, factor
        self.shapes: list[tuple[int, ...]] = []
        self.captions: list[str] = []
        self.prompts: list[tuple[str, int, tuple[int, int]]] = []
        self.lock = threading.Lock()

    def latents(self, pixels: Tensor) -> Tensor:
        with self.lock:
            self.shapes.append(tuple(pixels.shape))
        small = torch.nn.functional.avg_pool2d(pixels, 8)
        return torch.cat([small, small.mean(1, keepdim=True)], 1).mul(self.factor).half()

    def texts(self, captions: list[str]) -> dict[str, Tensor]:
        with self.lock:
            self.captions += captions
        numbers = torch.tensor([sum(c.encode()) + len(c) / 8 for c in captions])
        return {
            "encoder_hidden_states": (numbers[:, None, None] * torch.ones(3, 2)).half(),
            "pooled": numbers[:, None].expand(-1, 5).half(),
        }

    def from_prompt(self, captions: list[str], seeds: list[int], size: tuple[int, int]) -> Tensor:
        self.prompts += [(caption, seed, size) for caption, seed in zip(captions, seeds, strict=True)]
        shape = (4, size[0] // 8, size[1] // 8)
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]).half()


class Said(list):
    """Takes lines, and holds them."""

    def __call__(self, line: str) -> None:
        self.append(line)

    def __str__(self) -> str:
        return "\n".join(self)


def encoded(source, folder, encoders=None, settings=SETTINGS, **options):
    """`encode` with the defaults of these tests."""
    options = {"picture_batch": 3, "text_batch": 4, "say": Said(), **options}
    return encode(source, encoders or FakeEncoders(), folder, settings, **options)


def latents_of(cache):
    """Item → latents, by the batches of an epoch."""
    found = {}
    for step in range(len(cache)):
        batch = cache.batch(step, 1, 0, "look")
        found[cache.names[batch.rows[0]]] = batch.latents[0]
    return found


def blocks_of(folder, settings=SETTINGS, encoders="fake") -> Path:
    """Where the blocks of an identity stand."""
    return folder / fingerprint(identity(settings, encoders))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
