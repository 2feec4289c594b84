"""TCD Grid's own output for its help page, web/docs/img/grid_of_digits.png: digits by a run of `training.distill`.

python docs/grid_of_digits.py outputs/digits       (needs a ComfyUI, as the tests in tests/host do)

The run's teacher and LoRA are loaded into ComfyUI as tests/host/test_trained_digits.py does it, and the node is run.
"""

import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURE = REPOSITORY / "web" / "docs" / "img" / "grid_of_digits.png"
DIGITS, STEPS, GAMMAS, SEED = [3, 8], "1, 2, 4, 8", "0, 0.2, 0.5, 1", 5
ENLARGED = 16  # pixels of the picture for one of a digit's


def in_comfyui(run: str, prediction: str) -> None:
    """Run the node; this part runs under ComfyUI's interpreter."""
    sys.path.append(str(REPOSITORY / "tests" / "host" / "drivers"))
    import trained_lora_driver as host  # starts it
    from PIL import Image
    from torch.nn import functional

    class Unshuffle:
        """The digits' decoder: latents (B, 4, 4, 4) are pixels (B, 1, 8, 8), here as ink on paper."""

        def decode(self, samples):
            ink = (1 - functional.pixel_shuffle(samples, 2).clamp(-1, 1)) / 2
            return functional.interpolate(ink, scale_factor=ENLARGED).movedim(1, -1).repeat(1, 1, 1, 3)

    (lora,) = Path(run).glob("tcd_*.safetensors")
    host.folder_paths.add_model_folder_path("loras", str(lora.parent), is_default=True)
    teacher, _ = host.load_teacher(Path(run) / "teacher", prediction)
    model, report = host.loader.LoraLoader.execute(teacher, lora.name, 1.0).args
    table = host.load_file(Path(run) / "teacher" / "label_tokens.safetensors")["weight"]
    told = host.tokens_of(table, DIGITS, teacher.model.model_config.unet_config["context_dim"])
    latent = {"samples": host.torch.zeros(len(DIGITS), 4, 4, 4)}
    settings = {"cfg": 1.0, "denoise": 1.0, "order": "1", "seed": SEED}
    node = host.in_host.load_pack("nodes.grid").Grid
    grid = node.execute(model, Unshuffle(), [[told, {}]], [[told, {}]], latent, STEPS, GAMMAS, **settings).args[0]
    Image.fromarray((grid[0] * 255).round().byte().numpy()).quantize(64).save(PICTURE, optimize=True)
    print(report)


def main(run: Path) -> None:
    from front_end import find_host

    from training.opening import stored_recipe

    prediction = stored_recipe(run).teacher.prediction
    run = run if (run / "teacher").is_dir() else run / "seed-0"
    print(find_host().run_driver(Path(__file__), json.dumps([str(run.resolve()), prediction])))


if __name__ == "__main__":
    (given,) = sys.argv[1:]
    in_comfyui(*json.loads(given)) if given.startswith("[") else main(Path(given))
