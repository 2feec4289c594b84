"""The cache, and the pass over the data that fills it: pictures to latents, captions to embeddings, once.

The work is cut into blocks (`plan`), of which each process makes every n-th. A block is on the disk whole or not at
all, and depends on nothing but what it holds: a pass that was killed goes on with the blocks that are missing, and the
finished cache is the same, to the byte, as if it had never been killed, on any number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..disk import OutputError, check_writable, human_size, write_atomically
from ..folder_lock import lock
from . import blocks
from .items import DataError, Source
from .plan import (
    EMPTY,
    Plan,
    check_something_is_left,
    listed,
    make_plan,
    read_missing,
    skipped_of,
    write_missing,
)
from .reading import SETTINGS, SKIPPED, Cache, index_folder, write_index
from .settings import Settings, fingerprint, identity
from .work import Encoders, Work

__all__ = ["Cache", "Encoders", "Estimate", "encode", "estimate"]

_PLAN = "plan.json"


@dataclass(frozen=True)
class Estimate:
    """What is still to be encoded, and the bytes it will take on the disk."""

    pictures: int
    captions: int
    n_bytes: int


def estimate(plan: Plan, bytes_per_caption: int, bytes_per_value: int = 2, channels: int = 4) -> Estimate:
    """How much of a plan is missing.

    Args:
        bytes_per_caption: of all the text encoders' tensors for one caption.
        bytes_per_value: of the latents.
        channels: of the latents, at an eighth of the pixels' resolution.
    """
    pictures = [bucket for block in plan.pictures for bucket in block.buckets]
    captions = sum(len(block.captions) for block in plan.texts)
    latents = sum(channels * bucket.width * bucket.height // 64 * bytes_per_value for bucket in pictures)
    heads = 400 * len(pictures) + 300 * captions + 1000 * (len(plan.pictures) + len(plan.texts)) + 500 * len(plan.rows)
    return Estimate(len(pictures), captions, latents + captions * bytes_per_caption + heads)


def encode(
    source: Source,
    encoders: Encoders,
    folder: Path,
    settings: Settings,
    *,
    captions: Sequence[str] = (),
    picture_batch: int = 4,
    text_batch: int = 32,
    process_index: int = 0,
    num_processes: int = 1,
    wait: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = print,
    accept: Callable[[Plan], object] = lambda plan: None,
) -> Cache:
    """Encode what the cache in ``folder`` lacks of some data, and give the cache of these data.

    Pictures and captions that it has from other data or an earlier pass, with the same settings, are used. Pictures
    that cannot be decoded are skipped; what was skipped is told, and stands in ``skipped.txt`` beside the index.

    Args:
        folder: of all caches; each identity (see `settings`) has a folder of its own in it. With several processes
            all must see it.
        captions: more captions to embed, such as those of the validation pictures.
        picture_batch, text_batch: how many go through an encoder at once; no part of the cache's identity.
        process_index, num_processes, wait: the processes that share the work; ``wait`` returns when all have called it,
            which may take as long as the whole pass. Process 0 goes through the data, and writes the index.
        say: takes lines for people, on process 0.
        accept: sees what the data give before anything is encoded, on process 0; its `DataError` ends the pass.

    Raises:
        DataError: nothing is left to train on; the data changed during the pass; an encoder gave NaN.
        OutputError: too little space, not writable, or another run is writing to this cache.
    """
    made_with = identity(settings, encoders.fingerprint)
    here = Path(folder) / fingerprint(made_with)
    work = Work(source, encoders, here, settings, picture_batch, text_batch, process_index > 0)
    mine = slice(process_index, None, num_processes)
    with _taken(here) if process_index == 0 else nullcontext():
        with _all_come(wait):
            with _all_come(wait):
                with _all_come(wait):
                    if process_index == 0:
                        plan = _begin(work, made_with, captions, say, accept)
                        write_missing(here / _PLAN, plan)
                missing = read_missing(here / _PLAN)
                work.pictures(missing.pictures[mine])
                work.texts(missing.texts[mine])
            if process_index == 0:
                _finish(work, made_with, plan, say)
    return Cache.open(index_folder(here, missing.data))


@contextmanager
def _all_come(wait: Callable[[], None]) -> Iterator[None]:
    """Wait for the other processes at the block's end, after an error too, so that none waits for one that failed."""
    try:
        yield
    except Exception:
        wait()
        raise
    wait()


# ---- process 0 ----


@contextmanager
def _taken(folder: Path) -> Iterator[None]:
    """The folder held and free of what a killed pass has left.

    When it is refused, the other processes are left waiting, for their launcher to end: a plan that they would find
    there is another run's.
    """
    with ExitStack() as held:
        with _about_the_cache():
            check_writable(folder, 0)
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock(folder))
            left = [path for pattern in (_PLAN, ".*.tmp", ".write-test-*") for path in folder.glob(f"**/{pattern}")]
            for left_over in left:
                left_over.unlink(missing_ok=True)
        yield


def _begin(
    work: Work,
    made_with: dict,
    captions: Sequence[str],
    say: Callable[[str], None],
    accept: Callable[[Plan], object],
) -> Plan:
    """Look what is missing in the folder, and whether there is room for it."""
    write_atomically(work.folder / SETTINGS, json.dumps(made_with, indent=1) + "\n")
    say(f"Looking through {work.source} …")
    plan = make_plan(work.source, work.settings, work.folder, fingerprint(made_with), captions, say)
    say(_counted(plan))
    accept(plan)
    if not plan.pictures and not plan.texts:
        say(f"All of it is in the cache already: {work.folder}")
        return plan
    one = list(work.encoders.texts([EMPTY]).values())
    wanted = estimate(plan, sum(t.numel() * t.element_size() for t in one), one[0].element_size())
    say(
        f"To encode: {wanted.pictures} pictures, {wanted.captions} captions; about {human_size(wanted.n_bytes)} in "
        f"{work.folder}"
    )
    with _about_the_cache():
        check_writable(work.folder, wanted.n_bytes)
    return plan


def _counted(plan: Plan) -> str:
    what = "latents to be made by the teacher" if plan.generated else "pictures"
    sizes = len({row.bucket for row in plan.rows})
    shown = sum(row.repeats for row in plan.rows)
    words = f"{len(plan.rows)} {what} in {sizes} sizes, {shown} with repeats, {len(plan.captions)} captions"
    if not plan.skipped:
        return f"{words}; none skipped"
    return f"{words}; {len(plan.skipped)} skipped:\n{listed(plan.skipped)}"


def _finish(work: Work, made_with: dict, plan: Plan, say: Callable[[str], None]) -> None:
    """Write the index, once every block is there."""
    there = blocks.present(work.folder, fingerprint(made_with))
    lacking = {row.picture for row in plan.rows} | {blocks.text_key(caption) for caption in plan.captions}
    if lacking := [key for key in lacking if key not in there]:
        raise DataError(
            f"{len(lacking)} pictures and captions are still to be encoded: another process has failed (see its "
            "message). Start it again: what is encoded stays"
        )
    skipped = skipped_of(plan, there)
    check_something_is_left([row for row in plan.rows if row.picture not in there.bad], skipped, work.source)
    index = write_index(index_folder(work.folder, plan.name), made_with, plan, there, skipped)
    if late := skipped[len(plan.skipped) :]:
        say(f"{len(late)} more were skipped, damaged:\n{listed(late)}")
    if skipped:
        say(f"All {len(skipped)} that were skipped are listed in {index / SKIPPED}")
    (work.folder / _PLAN).unlink()


@contextmanager
def _about_the_cache() -> Iterator[None]:
    """Errors of the disk name the option that is the cache's."""
    try:
        yield
    except OutputError as error:
        raise OutputError(str(error).replace("--output", "--data.cache")) from error
