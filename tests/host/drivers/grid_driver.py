"""TCD Grid over a network that answers tanh(x), with a VAE that takes notes; argument: results.json.

Numbers only: what they should be is the test's business.
"""

import gc
import itertools
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from host_support import in_host  # noqa: E402

in_host.start_host()
import comfy.model_management  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402

Grid, KSampler = in_host.load_pack("nodes.grid").Grid, in_host.load_pack("nodes.ksampler").KSampler
comfy.utils.PROGRESS_BAR_ENABLED = False
EVALUATIONS: list[int] = []


def network(x, t):
    EVALUATIONS.append(t)
    return torch.tanh(x)


MODEL = in_host.model_on(network)
SIDE = 512  # of a decoded picture; its latent is 8 × 8


class NotingVAE:
    """Decodes to SIDE × SIDE pixels `shaped` as other VAEs do it, and calls `note` with each latent on the way."""

    def __init__(self, note=lambda samples: None, shaped=lambda pictures: pictures):
        self.note, self.shaped = note, shaped

    def decode(self, samples):
        self.note(samples)
        return self.shaped(self.pictures(samples))

    def pictures(self, samples):
        return torch.nn.functional.interpolate(samples[:, :3].sigmoid(), (SIDE, SIDE)).movedim(1, -1).contiguous()


def draw(vae, latent, steps="1, 2", gammas="0, 1", **more):
    """The node's outputs."""
    settings = {"seed": 7, "cfg": 1.0, "denoise": 1.0, "order": "1", **more}
    conditioning = in_host.conditioning()
    return Grid.execute(MODEL, vae, conditioning, conditioning, latent, steps, gammas, **settings).args


def random_latent(items: int) -> dict:
    return {"samples": torch.randn(items, 4, 8, 8, generator=torch.Generator().manual_seed(0))}


def equal_latents() -> dict:
    """How many latents the grid decoded over all kinds of settings, and which are not KSampler (TCD)'s to the bit."""
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    latents = {
        "empty": {"samples": torch.zeros(1, 4, 8, 8)},
        "batch": random_latent(3),
        "part of a batch": {**random_latent(2), "batch_index": [4, 1]},
        "masked": {**random_latent(2), "noise_mask": mask},
    }
    count, wrong = 0, []
    for (name, latent), order, denoise in itertools.product(latents.items(), ("1", "2", "2M"), (1.0, 0.5)):
        decoded: list[torch.Tensor] = []
        settings = {"order": order, "denoise": denoise, "cfg": 2.0}
        draw(NotingVAE(decoded.append), latent, "1, 3", "0, 0.6", seeds="7, 18446744073709551615", **settings)
        conditioning = in_host.conditioning()
        for samples, run in zip(decoded, itertools.product((7, 2**64 - 1), (1, 3), (0.0, 0.6)), strict=True):
            seed, steps, gamma = run
            alone = KSampler.execute(
                MODEL, seed, steps, 2.0, gamma, conditioning, conditioning, latent, denoise, order
            ).args[0]["samples"]
            count += 1
            if not torch.equal(samples, alone):
                wrong.append(f"{name}, order {order}, denoise {denoise}, {run}")
    return {"count": count, "wrong": wrong}


def live_bytes() -> int:
    """What all tensors there are hold."""
    storages = {}
    for found in gc.get_objects():
        if type(found) is torch.Tensor:
            storage = found.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def memory() -> dict:
    """Most bytes in tensors when a cell is about to be decoded, beside the grid itself, for two sizes of grid."""
    beside = {}
    for name, gammas in (("4 cells", "0, 1"), ("128 cells", ", ".join(f"{i / 63:.3f}" for i in range(64)))):
        noted: list[int] = []
        grid, cells, _ = draw(
            NotingVAE(lambda _, noted=noted: noted.append(live_bytes())), random_latent(1), "1, 2", gammas, max_cell=64
        )
        beside[name] = max(noted) - grid.untyped_storage().nbytes()
        assert len(cells) == len(noted)
        beside[f"{name}, in the outputs beside the grid"] = sum(
            cell.untyped_storage().nbytes()
            for cell in cells
            if cell.untyped_storage().data_ptr() != grid.untyped_storage().data_ptr()
        )
        del grid, cells
    return {"picture": SIDE * SIDE * 3 * 4, **beside}


def interrupted_while_decoding() -> dict:
    """Evaluations before and after an Interrupt that comes while the second cell is decoded, and how it ended."""
    counts: list[int] = []

    def note(_):
        counts.append(len(EVALUATIONS))
        if len(counts) == 2:
            comfy.model_management.interrupt_current_processing()

    EVALUATIONS.clear()
    try:
        draw(NotingVAE(note), random_latent(1), "4", "0, 0.5, 1")
        ended = "not at all"
    except comfy.model_management.InterruptProcessingException:
        ended = "interrupted"
    return {"decoded": len(counts), "before": counts[-1], "after": len(EVALUATIONS), "ended": ended}


def shapes() -> dict:
    """What becomes of what other VAEs give: a picture as a video of one frame, with alpha, two frames, sound."""
    shaped = {
        "one frame": lambda pictures: pictures[:, None],
        "alpha": lambda pictures: torch.cat([pictures, pictures[..., :1]], -1),
        "two frames": lambda pictures: pictures[:, None].repeat(1, 2, 1, 1, 1),
        "sound": lambda pictures: pictures[..., 0],
        "grey": lambda pictures: pictures[..., :1],
    }
    expected, found = draw(NotingVAE(), random_latent(2))[1], {}
    for name, function in shaped.items():
        try:
            cells = draw(NotingVAE(shaped=function), random_latent(2))[1]
            same = all(torch.equal(cell, alone) for cell, alone in zip(cells, expected, strict=True))
            found[name] = "the same cells" if same else "other cells"
        except ValueError as error:
            found[name] = str(error)
    return found


with torch.inference_mode():  # as the host runs its nodes
    parts = (equal_latents, memory, interrupted_while_decoding, shapes)
    Path(sys.argv[1]).write_text(json.dumps({part.__name__: part() for part in parts}))
