"""Prompts, one to a line."""

import pytest

from training.data.items import DataError, Item, Skipped
from training.data.prompts import Prompts


def written(tmp_path, content):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_lines_are_prompts_but_for_blank_ones_and_comments(tmp_path):
    items = list(Prompts(written(tmp_path, "\ufeffa cat\r\n\n  # no\n  a  dog \n")))
    assert [(item.key, item.caption, item.open) for item in items] == [
        ("line 1, picture 1", "a cat", None),
        ("line 4, picture 1", "a dog", None),
    ]


def test_every_prompt_has_its_seeds_wherever_it_stands(tmp_path):
    one = {(i.caption, i.seed) for i in Prompts(written(tmp_path, "a\nb\n"), 3)}
    two = {(i.caption, i.seed) for i in Prompts(written(tmp_path, "b\nc\n#\na\n"), 3)}
    assert len(one) == 6 and len({seed for _, seed in one}) == 6 and one < two
    assert all(0 <= seed < 2**63 for _, seed in two)


def test_a_prompt_that_stands_there_twice_has_twice_as_many_pictures(tmp_path):
    twice = [i.seed for i in Prompts(written(tmp_path, "a\na\n"), 2)]
    assert twice == [i.seed for i in Prompts(written(tmp_path, "a\n"), 4)] and len(set(twice)) == 4


def test_a_line_in_another_encoding_is_skipped_by_its_number(tmp_path):
    items = list(Prompts(written(tmp_path, b"a cat\ncaf\xe9\na dog\n")))
    assert [type(item) for item in items] == [Item, Skipped, Item]
    assert items[1] == Skipped("line 2", "the prompt is not UTF-8 (byte 0xe9 at position 3): save it as UTF-8")


def test_a_file_that_is_not_there_and_no_seeds_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none.txt cannot be read: No such file .* one prompt per line"):
        Prompts(tmp_path / "none.txt")
    with pytest.raises(DataError, match="prompt_seeds must be at least 1, got 0"):
        Prompts(written(tmp_path, "a"), 0)
