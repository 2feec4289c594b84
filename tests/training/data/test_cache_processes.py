"""A pass shared by several processes: nothing twice, nothing lost, the same cache."""

import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from some_data import FakeEncoders, encoded, tree, write_folder, write_tar

from training.data import blocks
from training.data import cache as filling
from training.data.folder import PictureFolder
from training.data.items import DataError
from training.data.prompts import Prompts
from training.data.shards import Shards
from training.disk import OutputError
from training.folder_lock import lock


def together(count, source_of, folder, encoders):
    """The caches or errors of processes that share a pass: threads here, which have nothing but the disk in common."""
    barrier = threading.Barrier(count)

    def process(i):
        try:
            options = {"process_index": i, "num_processes": count, "wait": lambda: barrier.wait(timeout=20)}
            return encoded(source_of(), folder, encoders[i], **options)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(process, range(count)))


def folder_source(tmp_path):
    folder = write_folder(tmp_path / "in", 23)
    (folder / "007.png").write_bytes((folder / "007.png").read_bytes()[:400])
    return lambda: PictureFolder(folder)


def shard_source(tmp_path):
    folder = write_folder(tmp_path / "in", 23)
    for i in range(3):
        names = sorted(path.name for path in folder.iterdir())[16 * i : 16 * (i + 1)]
        write_tar(tmp_path / f"{i}.tar", {name: (folder / name).read_bytes() for name in names})
    return lambda: Shards(str(tmp_path / "{0..2}.tar"))


def prompt_source(tmp_path):
    (tmp_path / "p.txt").write_text("".join(f"prompt {i}\n" for i in range(11)))
    return lambda: Prompts(tmp_path / "p.txt", 2)


@pytest.mark.parametrize("source", [folder_source, shard_source, prompt_source])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_processes_make_the_cache_that_one_makes_and_each_item_once(tmp_path, source, count):
    source_of = source(tmp_path)
    alone, encoders = FakeEncoders(), [FakeEncoders() for _ in range(count)]
    one = encoded(source_of(), tmp_path / "one", alone)
    caches = together(count, source_of, tmp_path / "many", encoders)
    assert tree(tmp_path / "one") == tree(tmp_path / "many")
    assert {cache.folder.name for cache in caches} == {one.folder.name}
    shapes = Counter(shape for e in encoders for shape in e.shapes)
    assert shapes == Counter(alone.shapes)
    assert Counter(p for e in encoders for p in e.prompts) == Counter(alone.prompts)
    captions = Counter(c for e in encoders for c in e.captions)
    assert captions == Counter(alone.captions) and max(captions[c] for c in captions if c) == 1
    assert sum(bool(e.shapes or e.prompts) for e in encoders) == count, "all had work"


def test_a_process_that_fails_stops_all_and_what_the_others_made_is_kept(tmp_path):
    class Failing(FakeEncoders):
        def latents(self, pixels):
            raise OutputError("No space left on device")

    source_of = folder_source(tmp_path)
    results = together(3, source_of, tmp_path / "many", [FakeEncoders(), Failing(), FakeEncoders()])
    assert isinstance(results[1], OutputError)
    assert isinstance(results[0], DataError) and "another process has failed (see its message)" in str(results[0])
    assert isinstance(results[2], DataError)
    assert not list((tmp_path / "many").glob("*/data-*")) and list((tmp_path / "many").glob("*/pictures-*"))
    again = [FakeEncoders() for _ in range(3)]
    together(3, source_of, tmp_path / "many", again)
    encoded(source_of(), tmp_path / "one")
    assert tree(tmp_path / "one") == tree(tmp_path / "many")
    assert 0 < sum(shape[0] for e in again for shape in e.shapes) < 22


def test_an_error_of_the_main_process_reaches_all(tmp_path):
    (tmp_path / "in").mkdir()
    results = together(2, lambda: PictureFolder(tmp_path / "in"), tmp_path / "cache", [FakeEncoders(), FakeEncoders()])
    assert "holds nothing to train on" in str(results[0])
    assert "the main process made no plan (see its message)" in str(results[1])


def test_the_pass_of_one_process_waits_for_the_others_at_the_same_points_whatever_happens(tmp_path):
    waits = []
    encoded(PictureFolder(write_folder(tmp_path / "in", 3)), tmp_path / "cache", wait=lambda: waits.append(1))
    good = len(waits)
    with pytest.raises(DataError):
        encoded(PictureFolder(write_folder(tmp_path / "none", 0)), tmp_path / "cache", wait=lambda: waits.append(1))
    assert good == 3 and len(waits) == 6


def test_a_refused_main_process_does_not_let_the_others_find_another_runs_plan(tmp_path):
    source, waits = PictureFolder(write_folder(tmp_path / "in", 3)), []
    cache = encoded(source, tmp_path / "cache")
    with lock(cache.folder.parent), pytest.raises(OutputError, match="in use by process"):
        encoded(source, tmp_path / "cache", num_processes=2, wait=lambda: waits.append(1))
    assert not waits


def test_the_lock_and_the_plan_are_gone_afterwards(tmp_path):
    cache = encoded(PictureFolder(write_folder(tmp_path / "in", 3)), tmp_path / "cache")
    names = os.listdir(cache.folder.parent)
    assert filling._PLAN not in names and not [name for name in names if name.endswith((".lock", ".tmp"))]
    assert len(blocks.present(cache.folder.parent, cache.folder.parent.name).block) == 3 + 1 + 2
