"""Distillation of TCD students: the trainer, its measurements and its pictures, on `tcd_core`'s mathematics.

Running it:

- `distill`: ``python -m training.distill``: parse a recipe, run it
- `evaluate`: ``python -m training.evaluate RUN_DIR``: measure and draw a run

What a run is:

- `recipe_fields`, `recipe_model_fields`, `recipe_section`: the recipe, field by field: unit, default, range
- `recipe`: recipes from TOML and back, their hash, the recipes derived from them
- `recipe_words`: its fields in words: ranges, errors for people
- `cli`: the command line over the recipe's fields
- `recipes`: the shipped recipes
- `families`: data, teacher and judge of a family of models, one file each
- `models`: pretrained models, from the files that people have
- `data`: pictures, shards and prompts, encoded once into a cache

The algorithm (arXiv 2402.19159, Algorithms 1 and 2):

- `objective`: the loss of one batch
- `teacher_pairs`: the same over batches that are kept, each with the teacher asked once
- `jumps`: the jumps t → s of a batch, first or second order: student's, target's and the teacher's one-step solution
- `end_times`: the end time s of each pair: drawn, marginalised, segmented
- `losses`: distances and weights
- `student`: teacher, student and target as one network
- `draws`: random numbers keyed by (seed, stream, step)

The run:

- `phases`: teacher, then students, each trained and saved once
- `loop`: the optimiser's loop; `stopping`: signals, and losses that explode
- `sharding`: full fine-tuning with weights, averages and moments in parts over the processes (FSDP)
- `checkpoint`: atomic checkpoints in one file; `disk`: files written whole or not at all
- `opening`, `run_folder`, `folder_lock`: claiming, resuming and holding a run's folder; `origin`: what it began with
- `lora_file`, `lora_metadata`: LoRAs in kohya's layout
- `pretrained`: what a pretrained model's run has besides: `validation` grids, `trackers`, `checkpoint_lora`, and at its
  end `comfyui`: LoRA and workflow in ComfyUI's folders

Before a run:

- `dry_run`: what it would take of memory, disk and time; `timed_step`: one step, timed and weighed; `random_data`
- `memory_arithmetic`: a GPU's memory worked out without one; `live_tensors`: what lives while something is computed

The results:

- `measure`: every method sampled and judged; `metrics`: Fréchet distance, complexity
- `samplers`: numerical solvers and strategic stochastic sampling, side by side
- `catalogue`: what metrics and methods there are, how they are called and read; `results`: their values
- `figures`, `bootstrap`: how figures are written and compared, their confidence intervals
- `claims`: what of the paper they bear out
- `report`: all that is written at the end; `report_json` the values' tables, `report_sections` and `report_tables` the
  report as blocks (`document`), `report_markdown` and `report_html` the blocks as files
- `compare`: ``python -m training.evaluate --compare``, of reports that `report_file` reads back
- `plots`, `plot_style`, `sample_grid`: the pictures
- `paper`: the paper's figures
"""
