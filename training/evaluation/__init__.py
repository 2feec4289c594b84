"""Real models measured like the paper: ``python -m training.evaluate --model …``.

What is sampled:

- `prompts`: prompts from a file, COCO's captions
- `cells`: methods, and sets of pictures of one method, gamma, step count and seed
- `model`, `lora`: the checkpoint, anybody's LoRA merged into it
- `noise`: keyed by prompt and seed
- `generation`, `pictures`: pictures into files; what is there is left
- `costs`: time, evaluations and peak memory of each batch

What is measured, from the files:

- `weights`: where metrics' weights are looked for
- `inception`, `clip_like`, `image_reward`, `lpips`: the networks, each from a maintained library
- `judging`, `rows`: every picture through every network, a row of a file each
- `reference`, `distances`: real pictures; FID and KID in the memory of a part of the files
- `measured`: figures with intervals and costs, and the report's `Results` made of them
- `command`: all of it in a folder that can be gone on with
"""
