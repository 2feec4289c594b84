"""Sources and settings of a recipe's section `data`."""

import pytest
from some_data import as_bytes, drawn, write_tar

from training.data import DataError, Settings, open_source
from training.data.folder import PictureFolder
from training.data.prompts import Prompts
from training.data.shards import Shards
from training.recipe_model_fields import Data


def test_the_recipe_names_the_source(tmp_path):
    write_tar(tmp_path / "a.tar", {"0.png": as_bytes(drawn(0)), "0.txt": b"a"})
    (tmp_path / "p.txt").write_text("a\n")
    assert isinstance(open_source(Data(images=str(tmp_path))), PictureFolder)
    assert isinstance(open_source(Data(shards=str(tmp_path / "a.tar"))), Shards)
    prompts = open_source(Data(prompts=str(tmp_path / "p.txt"), prompt_seeds=3))
    assert isinstance(prompts, Prompts) and len(list(prompts)) == 3


def test_no_data_says_what_to_name():
    with pytest.raises(DataError, match="no data: name data.images .* data.shards .* or data.prompts"):
        open_source(Data())


def test_the_teachers_part_counts_for_prompts_alone():
    pictures, prompts = Data(images="in", teacher_steps=10), Data(prompts="p.txt", teacher_steps=10, teacher_w=3.0)
    assert Settings.of(pictures, 512) == Settings(512, 64, 2.0, 256)
    assert Settings.of(prompts, 512) == Settings(512, 64, 2.0, 256, teacher_steps=10, teacher_w=3.0)
