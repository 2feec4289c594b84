"""GPU memory of the shipped recipes, worked out without a GPU and without weights; Markdown.

    python benchmarks/memory_table.py [--recipes sdxl …] [--samples N]

A LoRA of rank 64 as the recipe has it (checkpointing); the same with adamw8bit and offload; and without checkpointing.
A GB is 10⁹ bytes. How it is worked out, and what comes on top, stands in `training/memory_arithmetic.py`; the tests
hold it to what autograd saves and to a CPU's allocator on a small model. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import importlib
from types import SimpleNamespace

from tcd_core import VPSchedule
from training.data.buckets import Size
from training.families.latent_diffusion import DTYPES, LatentDiffusionFamily
from training.memory_arithmetic import drawing_need, encoding_needs, step_bytes
from training.models import configs
from training.models.detect import RECIPES
from training.recipe import Recipe, load_recipe, replaced

COLUMNS = {
    "LoRA, rank 64, checkpointing": {},
    "and `adamw8bit`, `offload`": {"optimizer": "adamw8bit", "offload": True},
    "without checkpointing": {"gradient_checkpointing": False},
}
ACTIVATIONS, GRADIENTS = "activations", "gradients"


class ConfiguredFamily(LatentDiffusionFamily):
    """A recipe's family by its standard configs, without a model."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.dtype = recipe, DTYPES[recipe.model.dtype]
        self.spec = importlib.import_module(f"training.families.{recipe.family}").SPEC
        self.found = SimpleNamespace(configs=configs.read_configs(configs.STANDARD / RECIPES[recipe.family][0]))
        self.schedule, self.prediction, self.resolution = VPSchedule.scaled_linear(), "epsilon", recipe.model.resolution
        self.latent_shape = (4, self.resolution // 8, self.resolution // 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--samples", type=int, help="of one backward pass; by default each recipe's")
    options = parser.parse_args()
    heads = ["GB, by arithmetic", *COLUMNS, "encoding pictures", "encoding prompts", "a grid, beside the first"]
    print(f"| {' | '.join(heads)} |\n| --- |{' ---: |' * (len(heads) - 1)}")
    for name in options.recipes:
        print(row(replaced(load_recipe(name), data={"images": "folder"}), options.samples), flush=True)


def row(recipe: Recipe, samples: int | None) -> str:
    """A recipe's figures; of a step also the part that is activations."""
    training, side = recipe.training, recipe.model.resolution
    samples, size = samples or training.batch // training.accumulation, Size(side, side)
    cells, steps = [f"{recipe.name}, {side} px, {samples} a pass"], []
    for memory in COLUMNS.values():
        changed = replaced(recipe, memory=memory)
        steps.append(step_bytes(ConfiguredFamily(changed), changed, size, samples, samples < training.batch))
        cells.append(f"{gb(sum(steps[-1].values()))} ({gb(steps[-1][ACTIVATIONS])})")
    prompts = replaced(recipe, data={"images": "", "prompts": "file"})
    for changed, kind in ((recipe, "pictures"), (prompts, "prompts")):
        needs = encoding_needs(ConfiguredFamily(changed), size)
        cells.append(gb(max(sum(need) for need in needs.values())) if kind in needs else "")
    beside = sum(n for name, n in steps[0].items() if name not in (ACTIVATIONS, GRADIENTS))
    cells.append(gb(beside + sum(drawing_need(ConfiguredFamily(recipe)))))
    return f"| {' | '.join(cells)} |"


def gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f}"


if __name__ == "__main__":
    main()
