"""Files are whole or not there; a disk that cannot take the run is found out before it begins."""

import errno
import os
import shutil
from collections import namedtuple

import pytest

from training import disk
from training.disk import OutputError, check_writable, human_size, write_atomically


def failing(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("data, content", [("γ\n", b"\xce\xb3\n"), (b"\r\n\0", b"\r\n\0")])
def test_text_and_bytes_are_written_as_they_are(tmp_path, data, content):
    write_atomically(tmp_path / "file", "old")
    write_atomically(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_names_what_is_needed(tmp_path, monkeypatch, call):
    write_atomically(tmp_path / "file", "old")
    monkeypatch.setattr(os, call, failing(errno.ENOSPC))
    with pytest.raises(OutputError, match=r"file was not written: No space left .* about 2\.5 MB, .* are free"):
        write_atomically(tmp_path / "file", bytes(2_500_000))
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_has_gone_is_an_error_for_people(tmp_path):
    with pytest.raises(OutputError, match="No such file .* its folder cannot be reached"):
        write_atomically(tmp_path / "gone" / "file", "")


def test_the_remains_of_a_killed_write_are_replaced_by_the_next(tmp_path):
    (tmp_path / ".file.tmp").write_text("half")
    write_atomically(tmp_path / "file", "whole")
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_inside_the_block_leaves_the_old_file(tmp_path):
    write_atomically(tmp_path / "file", "old")
    with pytest.raises(KeyboardInterrupt), disk.replacing(tmp_path / "file") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "file").read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_file_system_that_cannot_sync_folders_will_do(tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def files_only(handle):
        calls.append(handle)
        return fsync(handle) if len(calls) == 1 else failing(errno.EINVAL)()

    monkeypatch.setattr(os, "fsync", files_only)
    write_atomically(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole" and len(calls) == (1 if os.name == "nt" else 2)


# ---- before a run ----


def test_a_folder_to_be_made_is_tried_in_the_one_above_it_and_nothing_stays(tmp_path):
    check_writable(tmp_path / "outputs" / "digits", 1000)
    assert os.listdir(tmp_path) == []


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "digits"):
        with pytest.raises(OutputError, match=r"file is a file, not a folder.* --output"):
            check_writable(folder, 0)


@pytest.mark.parametrize(
    "number, words", [(errno.EROFS, "Read-only"), (errno.EACCES, "denied"), (errno.ENOSPC, "space")]
)
def test_a_disk_that_takes_nothing_is_refused(tmp_path, monkeypatch, number, words):
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(OutputError, match=rf"cannot write to .*{words}.* --output"):
        check_writable(tmp_path, 0)
    assert os.listdir(tmp_path) == []


def test_too_little_space_names_both_numbers(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**10, 9 * 10**9, 10**9))
    check_writable(tmp_path, 10**9)
    with pytest.raises(OutputError, match=r"needs about 3\.2 GB and 1\.0 GB are free"):
        check_writable(tmp_path, 3_200_000_000)


@pytest.mark.parametrize(
    "n_bytes, words",
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (34_000_000, "34.0 MB"),
        (5e9, "5.0 GB"),
        (7.2e15, "7200.0 TB"),
    ],
)
def test_sizes_read_well(n_bytes, words):
    assert human_size(n_bytes) == words
