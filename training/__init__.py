"""Distillation of TCD students: the trainer, its measurements and its pictures, on `tcd_core`'s mathematics.

Running it:

- `distill`: ``python -m training.distill``: parse a recipe, run it
- `evaluate`: ``python -m training.evaluate RUN_DIR``: measure and draw a run

What a run is:

- `recipe_fields`: the recipe, field by field: unit, default, range
- `recipe`: recipes from TOML and back, their hash, the recipes derived from them
- `recipe_words`: its fields in words: ranges, errors for people
- `cli`: the command line over the recipe's fields
- `recipes`: the shipped recipes

The algorithm (arXiv 2402.19159, Algorithms 1 and 2):

- `end_times`: the end time s of each pair: drawn, marginalised, segmented
- `losses`: distances and weights
- `solvers`: the teacher's one-step solution
- `objective`: the loss of one batch
- `student`: teacher, student and target as one network

The run:

- `loop`: the optimiser's loop
- `checkpoint`: atomic checkpoints in one file
- `run_folder`: claiming and resuming a run's folder
- `lora_file`: LoRAs in kohya's layout, with metadata
- `families`: data, teacher and feature extractor of a family of models

The results:

- `samplers`: numerical solvers and SSS, side by side
- `measure`: Fréchet distance, class accuracy, complexity
- `report`: ``report.json`` and ``report.md``
- `plots`: the pictures
- `paper`: the paper's figures
"""
