"""Folders of pictures and captions: what is found, how often it counts, and what is skipped with which reason."""

import os

import pytest
from some_data import as_bytes, drawn

from training.data.folder import PictureFolder
from training.data.items import DataError, Item, Skipped

PNG = as_bytes(drawn(0))


def written(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def found(folder, kind=Item):
    return [item for item in PictureFolder(folder) if isinstance(item, kind)]


def reasons(folder):
    return {item.key: item.why for item in found(folder, Skipped)}


def test_pictures_with_captions_in_the_order_of_their_paths(tmp_path):
    files = {"b.png": PNG, "b.txt": "two", "a.JPG": PNG, "a.TXT": "one", "z/c.webp": PNG, "z/c.caption": "three"}
    items = found(written(tmp_path, files))
    assert [(i.key, i.caption, i.repeats) for i in items] == [
        ("a.JPG", "one", 1),
        ("b.png", "two", 1),
        ("z/c.webp", "three", 1),
    ]
    assert items[1].open() == PNG
    assert [i.key for i in PictureFolder(tmp_path)] == [i.key for i in PictureFolder(tmp_path)]


def test_a_folders_name_says_how_often_its_pictures_count(tmp_path):
    files = {
        f"{place}{kind}": "x" if kind == "a.txt" else PNG
        for place in ("", "5_cats/", "5_cats/grey/", "5_cats/2_old/", "10/")
        for kind in ("a.png", "a.txt")
    }
    repeats = {item.key: item.repeats for item in found(written(tmp_path, files))}
    assert repeats == {"a.png": 1, "5_cats/a.png": 5, "5_cats/grey/a.png": 5, "5_cats/2_old/a.png": 2, "10/a.png": 1}


def test_no_repeats_are_none(tmp_path):
    written(tmp_path, {"0_off/a.png": PNG, "0_off/a.txt": "x"})
    assert reasons(tmp_path) == {"0_off/a.png": "its folder's name says 0 repeats"}


@pytest.mark.parametrize(
    "caption, is_read",
    [("\ufeffcaf\u00e9".encode(), "café"), (b"  two\r\n lines\t ", "two lines"), ("猫".encode(), "猫")],
)
def test_captions_are_utf_8_with_or_without_a_byte_order_mark(tmp_path, caption, is_read):
    written(tmp_path, {"a.png": PNG, "a.txt": caption})
    assert found(tmp_path)[0].caption == is_read


@pytest.mark.parametrize(
    "caption, why",
    [
        ("café".encode("latin-1"), r"its caption is not UTF-8 (byte 0xe9 at position 3): save it as UTF-8"),
        ("猫".encode("shift_jis"), r"its caption is not UTF-8 (byte 0x94 at position 0): save it as UTF-8"),
        ("cat".encode("utf-16"), "its caption is UTF-16, not UTF-8: save it as UTF-8"),
        ("cat".encode("utf-16-le"), "its caption is UTF-16 or binary, not UTF-8: save it as UTF-8"),
        (b" \n", "its caption is empty"),
        (b"a" * 100_000, "its caption has 65537 bytes, which is no caption: 65536 at most"),
    ],
)
def test_a_caption_that_cannot_be_read_is_a_reason_to_skip(tmp_path, caption, why):
    written(tmp_path, {"a.png": PNG, "a.txt": caption, "b.png": PNG, "b.txt": "fine"})
    assert reasons(tmp_path) == {"a.png": why}
    assert [item.key for item in found(tmp_path)] == ["b.png"]


def test_pictures_without_captions_and_of_other_formats_are_listed_and_other_files_are_not(tmp_path):
    written(
        tmp_path, {"a.png": PNG, "b.gif": b"", "notes.md": "", ".c.png": PNG, ".hidden/d.png": PNG, "lonely.txt": ""}
    )
    assert reasons(tmp_path) == {
        "a.png": "no caption: a.txt is not beside it",
        "b.gif": "not PNG, JPEG, WebP or BMP: convert it to one of them",
    }
    assert found(tmp_path) == []


def test_a_link_to_a_folder_is_told_of_and_a_loop_of_links_ends(tmp_path):
    written(tmp_path, {"a.png": PNG, "a.txt": "x"})
    os.symlink(tmp_path, tmp_path / "loop")
    assert reasons(tmp_path) == {"loop": "a link to a folder: copy it, or name the folder it leads to"}
    assert len(found(tmp_path)) == 1


def test_a_folder_that_is_not_there_or_a_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="none does not exist. Name the folder"):
        PictureFolder(tmp_path / "none")
    written(tmp_path, {"a.png": PNG})
    with pytest.raises(DataError, match="is a file, not a folder"):
        PictureFolder(tmp_path / "a.png")
