"""Every shipped recipe goes through a dry run as it is, but for a narrow model of random weights and small pictures.

The resolution is 64 px in place of 512, 768 and 1024, which take minutes on a CPU, and the smallest side that a picture
may have is less; nothing else of a recipe is changed but where model and data are.
"""

import pytest
from training_support.pretrained import write_small_checkpoint
from training_support.random_checkpoints import LORA_MODULES
from training_support.tiny import fresh_accelerator

from training.dry_run import dry_run
from training.models.detect import RECIPES
from training.pretrained import check
from training.recipe import check_complete, load_recipe, replaced, shipped_recipes

SIDE = 64
PASSES = {"sd15": "3 passes of 4", "sd21": "3 passes of 4", "sd21v": "6 passes of 2", "sdxl": "12 passes of 1"}
OWN_SIDE = {"sd15": 512, "sd21": 512, "sd21v": 768, "sdxl": 1024}


EMBEDDED = ("digits", "digits-table", "shapes")


def test_these_are_all():
    assert shipped_recipes().keys() == {*RECIPES, *EMBEDDED}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_of_a_pretrained_family_tells_what_it_would_take(name, cats, tmp_path):
    shipped, (family, prediction) = load_recipe(name), RECIPES[name]
    assert shipped.model.resolution == OWN_SIDE[name] and shipped.student.rank == 64
    model = write_small_checkpoint(tmp_path, family, v_prediction=prediction == "v_prediction")
    places = {"path": str(model), "config": f"{model}.config"}
    data = {"images": str(cats), "cache": str(tmp_path / "cache"), "min_side": 32}
    recipe = replaced(shipped, model={**places, "resolution": SIDE}, data=data)
    check_complete(recipe)
    check(recipe)
    lines = dry_run(recipe, fresh_accelerator(mixed_precision=shipped.training.precision)).splitlines()
    told = {line[2:26].strip(): line[26:] for line in lines if line.startswith("  ")}
    assert told["trained"].startswith(f"LoRA of rank 64 on {LORA_MODULES[family]} layers: ")
    assert told["prediction"] == (prediction or "epsilon")
    assert told["steps"] == f"3,000 of 12 samples (1 processes × {PASSES[name]})"
    assert f"for 4 of {SIDE}×{SIDE}" in told["encoding pictures"] and "decoding a grid" in told and "in all" in told
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_families_are_told_in_short(name):
    check_complete(load_recipe(name))
    assert f"The recipe {name} downloads nothing" in dry_run(load_recipe(name), fresh_accelerator())
