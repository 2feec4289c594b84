"""Webdataset shards, whole and damaged."""

import gzip
import io
import json
import shutil
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from some_data import as_bytes, drawn, write_tar

from training.data import shards
from training.data.items import DataError, Item, Skipped
from training.data.shards import Shards

PNG = as_bytes(drawn(0))


def samples(count, first=0):
    files = {}
    for i in range(first, first + count):
        files |= {f"{i:04}.png": as_bytes(drawn(i)), f"{i:04}.txt": f"picture {i}".encode()}
    return files


def items_of(urls):
    items = list(Shards(str(urls)))
    return [i for i in items if isinstance(i, Item)], [i for i in items if isinstance(i, Skipped)]


def test_braces_and_stars_name_shards_and_each_sample_comes_once_in_order(tmp_path):
    for i in range(3):
        write_tar(tmp_path / f"data-{i:03}.tar", samples(4, 4 * i))
    for urls in (tmp_path / "data-{000..002}.tar", tmp_path / "data-*.tar"):
        items, skipped = items_of(urls)
        assert [item.caption for item in items] == [f"picture {i}" for i in range(12)] and not skipped
        assert items[5].key == "data-001.tar/0005" and items[5].open() == as_bytes(drawn(5))


@pytest.mark.parametrize(
    "ending, caption",
    [
        ("txt", b"a cat"),
        ("caption", b"a cat"),
        ("json", json.dumps({"caption": " a cat", "width": 40}).encode()),
    ],
)
@pytest.mark.parametrize("picture", ["jpg", "jpeg", "png", "webp", "JPG"])
def test_captions_and_pictures_by_any_of_their_endings(tmp_path, ending, caption, picture):
    write_tar(tmp_path / "a.tar", {f"x/0.{picture}": PNG, f"x/0.{ending}": caption, "x/0.cls": b"3", "__index__": b""})
    (item,), skipped = items_of(tmp_path / "a.tar")
    assert (item.key, item.caption, item.open()) == ("a.tar/x/0", "a cat", PNG) and not skipped


def test_samples_that_lack_something_are_skipped_with_the_reason(tmp_path):
    files = {"0.png": PNG, "1.txt": b"x", "2.png": PNG, "2.json": b"{", "3.png": PNG, "3.json": b'{"caption": 3}'}
    files |= {"4.png": PNG, "4.txt": b"caf\xe9", "5.png": PNG, "5.json": b"[" * 50_000}
    items, skipped = items_of(write_tar(tmp_path / "a.tar", files))
    no_caption = 'no caption: its .json does not hold a "caption"'
    assert items == []
    assert {s.key: s.why for s in skipped} == {
        "a.tar/0": "no caption: neither .txt nor .caption nor .json beside it",
        "a.tar/1": "no picture: none of its files is named 1.jpg, .png, .webp or .bmp",
        "a.tar/2": no_caption,
        "a.tar/3": no_caption,
        "a.tar/4": "its caption is not UTF-8 (byte 0xe9 at position 3): save it as UTF-8",
        "a.tar/5": no_caption,
    }


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_shard_gives_what_is_before_the_cut_names_itself_and_the_next_one_is_read(tmp_path, compressed):
    whole = write_tar(tmp_path / "data-0.tar", samples(6)).read_bytes()
    cut = gzip.compress(whole)[: len(gzip.compress(whole)) // 2] if compressed else whole[: len(whole) // 2]
    (tmp_path / "data-0.tar").write_bytes(cut)
    write_tar(tmp_path / "data-1.tar", samples(2, 6))
    items, (shard,) = items_of(tmp_path / "data-{0..1}.tar")
    assert 0 < len(items) - 2 < 6
    assert [item.caption for item in items] == [f"picture {i}" for i in [*range(len(items) - 2), 6, 7]]
    assert shard.key == str(tmp_path / "data-0.tar")
    assert f"the shard is damaged after {len(items) - 2} samples (" in shard.why
    assert "the samples before are used. Copy or download it again" in shard.why


def test_a_shard_cut_anywhere_is_never_taken_for_a_whole_one(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"0.png": b"1" * 700, "0.txt": b"a", "1.png": b"2" * 20, "1.txt": b"b"})
    whole = path.read_bytes()
    end = (1 + 2) * 512 + 3 * (1 + 1) * 512  # four headers with their content; then the end mark
    caption_read = {"a": 2048 + 1, "b": 4096 + 1}
    for cut in [0, 1, 511, 512, 513, 1200, 1536, 1537, 2048, 2049, 2560, 3000, 3072, 3584, 4097, end - 1, end]:
        path.write_bytes(whole[:cut])
        items, skipped = items_of(path)
        assert [s.key for s in skipped] == [str(path)], cut
        assert [item.caption for item in items] == [c for c, at in caption_read.items() if cut >= at], cut
    path.write_bytes(whole[: end + 1024])
    assert len(items_of(path)[0]) == 2 and not items_of(path)[1]


def test_a_damaged_header_in_the_middle_is_no_end(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(3))
    data = bytearray(path.read_bytes())
    at = data.index(b"0001.png")
    data[at : at + 4] = b"XXXX"
    path.write_bytes(data)
    items, (shard,) = items_of(path)
    assert [item.caption for item in items] == ["picture 0"] and "damaged after 1 samples (bad checksum" in shard.why


def test_what_is_no_tar_file_is_skipped_as_a_shard(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"<html>404</html>" * 100)
    items, (shard,) = items_of(tmp_path / "a.tar")
    assert items == [] and "damaged after 0 samples" in shard.why


def test_a_file_that_is_there_twice_is_told_of_and_nothing_else_is_lost(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("0.png", "0.txt", "0.txt", "1.png", "1.txt"):
            member, data = tarfile.TarInfo(name), PNG if name.endswith("png") else b"x"
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    items, (double,) = items_of(tmp_path / "a.tar")
    assert len(items) == 2 and "twice" in double.why and "0.txt" in double.why


def test_an_address_that_would_run_a_command_is_refused_and_nothing_runs(tmp_path):
    for url in (f"pipe:touch {tmp_path}/ran", f"pipe:touch {tmp_path}/ran; cat *.tar"):
        with pytest.raises(DataError, match="would run a command, and is not opened|there is no file pipe"):
            Shards(url)
    with pytest.raises(DataError, match="gs://bucket/a.tar is neither a file nor an http"):
        Shards("gs://bucket/a.tar")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_not_there_is_refused_before_anything_is_read(tmp_path):
    write_tar(tmp_path / "data-0.tar", samples(1))
    with pytest.raises(DataError, match=r"there is no file .*data-1.tar. Name paths of .tar files"):
        Shards(str(tmp_path / "data-{0..3}.tar"))
    with pytest.raises(DataError, match=r"there is no file .*none-\*.tar"):
        Shards(str(tmp_path / "none-*.tar"))


def test_a_shard_from_the_network_that_gives_nothing_is_an_error_not_a_loss(monkeypatch):
    def refused(url):
        raise OSError(111, "Connection refused")

    monkeypatch.setattr(shards, "_stream", refused)
    with pytest.raises(DataError, match="a.tar gave nothing: Connection refused. Check the address and the network"):
        list(Shards("https://example.org/a.tar"))


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset reads addresses through curl")
def test_shards_are_read_from_a_web_server(tmp_path, web_server):
    write_tar(tmp_path / "a.tar", samples(3))
    items, skipped = items_of(f"{web_server}/a.tar")
    assert [item.caption for item in items] == ["picture 0", "picture 1", "picture 2"] and not skipped
    with pytest.raises(DataError, match="none.tar gave nothing"):
        items_of(f"{web_server}/none.tar")


@pytest.fixture
def web_server(tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *args: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_without_the_library_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    with pytest.raises(DataError, match="pip install webdataset"):
        Shards("a.tar")
