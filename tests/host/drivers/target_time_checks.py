"""What `lora_driver` measures of TCF(S+) inside the host: the embedding's effect, and which s the network is told."""

import comfy.sample
import comfy.samplers
import torch
from host_support import in_host

CPU = torch.device("cpu")


class Told:
    """An emb patch that notes s as the sampler wrote it."""

    def __init__(self):
        self.times = []

    def __call__(self, emb, model_channels, transformer_options):
        self.times.append(transformer_options.get("tcd_target_time"))
        return emb


def run(model, loader, plain: str, s_plus: str, strength: float) -> dict:
    """`plain` is the file `s_plus` without its target-time embedding."""
    bare = loader.LoraLoader.execute(model, plain, strength).args[0]
    full = loader.LoraLoader.execute(model, s_plus, strength).args[0]
    patch = full.model_options["transformer_options"]["patches"]["emb_patch"][0]
    results = clones(full, patch) | forward(bare, full, patch, strength)
    results |= sampled(bare, full, patch, strength) | told_by_sampler_tcd(full)
    return results | refused_without_sigmas(full)


def clones(full, patch) -> dict:
    """Clones share the embedding's weights; moving to a dtype does nothing; the meta device gets a copy."""
    clone = full.clone().model_options["transformer_options"]["patches"]["emb_patch"][0]
    moved = patch.to(torch.device("meta"))
    return {
        "clones_share": clone is not patch and clone.embedding is patch.embedding,
        "dtype_ignored": patch.to(torch.float16) is patch and patch.to(CPU) is patch,
        "moving_copies": moved is not patch
        and moved.embedding.linear_1.weight.is_meta
        and not patch.embedding.linear_1.weight.is_meta,
    }


class Direct:
    """Adds `strength · embedding(s)` to what the time MLP returns, outside the host's patches."""

    def __init__(self, network, patch, strength: float, times):
        self.patch, self.strength, self.times = patch, strength, iter(times)
        self.handle = network.time_embed.register_forward_hook(self.add)

    def add(self, module, inputs, output):
        return output + self.strength * self.patch.embedding(torch.tensor([next(self.times)]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handle.remove()


def distance(a, b) -> float:
    return float((a - b).norm() / b.norm())


@torch.inference_mode()
def forward(bare, full, patch, strength: float) -> dict:
    """One evaluation: the host's patch against the embedding added by hand."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    context = torch.randn(2, 8, 768, generator=generator)
    network, t = full.model.diffusion_model, torch.tensor([999.0, 999.0])

    def output(s=None):
        options = dict(full.model_options["transformer_options"]) | {"tcd_target_time": s}
        return network(x, t, context=context, transformer_options=options if s is not None else {})

    full.patch_model(device_to=CPU)
    try:
        with Direct(network, patch, strength, [607.0]):
            by_hand = network(x, t, context=context, transformer_options={})
        results = {
            "forward_distance": distance(output(607.0), by_hand),
            "effect_of_embedding": distance(output(607.0), output()),
            "effect_of_s": distance(output(607.0), output(0.0)),
        }
    finally:
        full.unpatch_model(device_to=CPU)
    return results


def sample(model, sampler: str, scheduler: str, cfg: float = 1.0):
    """The stock way to a latent: comfy.sample.sample, 4 steps."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(1, 4, 8, 8, generator=generator)
    conds = [[[torch.randn(1, 8, 768, generator=generator), {}]] for _ in range(2)]
    return comfy.sample.sample(model, noise, 4, cfg, sampler, scheduler, *conds, torch.zeros_like(noise), seed=5)


def sampled(bare, full, patch, strength: float) -> dict:
    """euler with the S+ file against euler with each step's next time added by hand."""
    sampling = full.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 4)
    times = [float(sampling.timestep(sigma)) for sigma in sigmas[1:-1]] + [0.0]
    ours = sample(full, "euler", "simple")
    without = sample(bare, "euler", "simple")
    with Direct(full.model.diffusion_model, patch, strength, times):
        by_hand = sample(bare, "euler", "simple")
    with Direct(full.model.diffusion_model, patch, strength, times):
        guided = sample(bare, "euler", "simple", cfg=3.0)
    return {
        "euler_times": times,
        "euler_distance": distance(ours, by_hand),
        "euler_effect": distance(ours, without),
        "guided_distance": distance(sample(full, "euler", "simple", cfg=3.0), guided),
        "karras_is_finite": bool(torch.isfinite(sample(full, "heun", "karras")).all()),
    }


def told_by_sampler_tcd(full) -> dict:
    """The times that sampler `tcd` tells the network, at γ = 0.3 over the reference's 4 steps."""
    sampling, scheduling = in_host.load_pack("nodes.sampling"), in_host.load_pack("nodes.host")
    model, told = full.clone(), Told()
    model.set_model_emb_patch(told)
    sigmas = scheduling.tcd_sigmas(model.get_model_object("model_sampling"), 4)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    latent, cond = torch.zeros_like(noise), in_host.conditioning()
    sampler = sampling.tcd_sampler(0.3, "1")
    comfy.sample.sample_custom(model, noise, 1.0, sampler, sigmas, cond, cond, latent, seed=1)
    return {"told": told.times}


def refused_without_sigmas(full) -> dict:
    """Evaluating the network outside any sampler."""
    patch = full.model_options["transformer_options"]["patches"]["emb_patch"][0]
    try:
        patch(torch.zeros(1, 1280), 320, {})
    except RuntimeError as error:
        return {"without_sigmas": str(error)}
    return {"without_sigmas": ""}
