"""A ComfyUI's folders: where they are, what it lists in them, and files put there without overwriting any."""

from __future__ import annotations

import filecmp
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from .disk import OutputError, reason, replacing, space_for

_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".pkl", ".sft")  # that ComfyUI lists


@dataclass(frozen=True)
class ComfyUI:
    """A ComfyUI's folders.

    Attributes:
        root: the installation, or the base directory of one (``--base-directory``, the desktop app).
        checkpoints: where it looks for checkpoints, those of its extra_model_paths.yaml too.
    """

    root: Path
    checkpoints: tuple[Path, ...]

    @property
    def loras(self) -> Path:
        return self.root / "models" / "loras"

    @property
    def workflows(self) -> Path:
        """Where its list of saved workflows is, of the one user that it has by default."""
        return self.root / "user" / "default" / "workflows"

    def has_this_pack(self) -> bool:
        """Whether the nodes that the workflow uses lie in its custom_nodes."""
        folder = self.root / "custom_nodes"
        return folder.is_dir() and any((pack / "tcd_core").is_dir() for pack in folder.iterdir())


def find_comfyui(path: str | os.PathLike) -> ComfyUI:
    """The ComfyUI at a path; to be called before a training that is to end in it.

    Raises:
        ValueError: it is none, with the nearest that is one; or its folders cannot be written to.
    """
    root = Path(path).expanduser().absolute()
    if not _is_comfyui(root):
        raise ValueError(_no_comfyui(Path(path), root))
    found = ComfyUI(root, (root / "models" / "checkpoints", *_extra_folders(root, "checkpoints")))
    for folder in (found.loras, found.workflows):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ValueError(
                f"cannot write to {folder}: make {there} a folder that is writable, or leave out --comfyui"
            )
    return found


def _is_comfyui(root: Path) -> bool:
    return (root / "models").is_dir() and any((root / name).is_dir() for name in ("comfy", "custom_nodes"))


def _no_comfyui(given: Path, root: Path) -> str:
    nearby = [root / "ComfyUI", *root.parents][:4]
    near = next((f". {folder} is one: give that" for folder in nearby if _is_comfyui(folder)), "")
    if not root.is_dir():
        return f"there is no folder {given}, so no ComfyUI to write to{near}"
    missing = [f"{name}/" for name in ("models", "comfy") if not (root / name).is_dir()]
    advice = near or ": give the folder that has comfy/ and models/ in it, or the base directory of the desktop app"
    return f"{given} is no ComfyUI, it lacks {' and '.join(missing)}{advice}"


def _extra_folders(root: Path, kind: str) -> Iterator[Path]:
    """Folders of a kind that extra_model_paths.yaml adds; a file that cannot be read adds none."""
    file = root / "extra_model_paths.yaml"
    try:
        sections = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return
    for section in sections.values() if isinstance(sections, dict) else ():
        if isinstance(section, dict) and isinstance(section.get(kind), str):
            base = os.path.expandvars(os.path.expanduser(str(section.get("base_path") or "")))
            for line in filter(None, section[kind].split("\n")):
                yield Path(os.path.normpath(root / base / line.strip()))


def listed(folder: Path) -> Iterator[Path]:
    """The files that ComfyUI lists of a folder."""
    for path, _, names in os.walk(folder, followlinks=True):
        yield from (file for name in names if name.lower().endswith(_SUFFIXES) and (file := Path(path, name)).is_file())


def place(path: Path, content: bytes | Path, otherwise: str) -> Path:
    """Write a file under its name or the next free one; the file that has this content already, if one has.

    Raises:
        OutputError: it could not be written; the message ends with what to do otherwise.
    """
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            target = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            if not os.path.lexists(target) and _written(target, content):
                return target
            if target.is_file() and _same(target, content):
                return target
    except OSError as error:
        raise OutputError(f"{path} was not written: {reason(error)}. {space_for(path, size)} {otherwise}") from error


def _written(target: Path, content: bytes | Path) -> bool:
    """Write a new file, whole or not at all; False if somebody took its name meanwhile."""
    try:
        with replacing(target) as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                with open(content, "rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
            open(target, "x").close()  # the name is taken at the last moment, if it is still free
    except FileExistsError:
        return False
    return True


def _same(file: Path, content: bytes | Path) -> bool:
    if isinstance(content, bytes):
        return file.read_bytes() == content
    return filecmp.cmp(file, content, shallow=False)
