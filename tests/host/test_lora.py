"""The LoRA loader inside a real ComfyUI: every format complete and exact, refusals harmless, TCF(S+) told its s."""

import json
from pathlib import Path

import pytest
import torch
from host_support import tiny_checkpoints
from host_support import workflows as w
from host_support.client import Client, WorkflowError
from host_support.host import Host
from lora_files import FORMATS, Adapter, diffusers_pipeline, kohya, ldm_name, make_adapter, make_unet, target_modules
from safetensors.torch import load_file, save_file

from tcd_core.target_embedding import TargetTimeEmbedding

DRIVER = Path(__file__).parent / "drivers" / "lora_driver.py"
STRENGTH = 0.75
WIDTH, EMBED = 320, 1280
QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
QUERY_KEY = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
QKV_KEY = "diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"


class Job:
    """The cases of one driver run, and the files they need."""

    def __init__(self, folder: Path):
        self.folder, self.loras = folder, folder / "loras"
        self.loras.mkdir()
        self.cases: list[dict] = []

    def add(self, name: str, family: str, file: Path, **case) -> None:
        self.cases.append({"name": name, "family": family, "file": str(file.relative_to(self.loras)), **case})

    def write(self, name: str, tensors: dict, metadata: dict | None = None) -> Path:
        path = self.loras / f"{name}.safetensors"
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, path, metadata=metadata)
        return path

    def deltas(self, name: str, adapter: Adapter, scaled: bool) -> str:
        path = self.folder / f"{name}_{'scaled' if scaled else 'plain'}.safetensors"
        if not path.exists():
            changes = adapter.deltas(scaled)
            save_file({weight_key(module): delta.contiguous() for module, delta in changes.items()}, path)
        return str(path)


def weight_key(module: str) -> str:
    return f"diffusion_model.{ldm_name(module)}.weight"


def add_formats(job: Job) -> None:
    """Every format on the SD1.5-shaped model, the two that matter most on the SDXL- and SD2.1-shaped ones."""
    adapter = make_adapter(make_unet("sd15", WIDTH))
    for name, writer in FORMATS.items():
        file = writer(adapter, job.loras)
        keys = {"keys": sorted(weight_key(module) for module in file.modules)} if file.modules else {}
        job.add(name, "sd15", file.path, expected=job.deltas("sd15", adapter, file.scaled), strength=STRENGTH, **keys)
    job.add("strength_0", "sd15", job.loras / "kohya.safetensors", strength=0.0)
    for family in ("sdxl", "sd21v"):
        other = make_adapter(make_unet(family, WIDTH))
        folder = job.loras / family
        folder.mkdir()
        for writer in (diffusers_pipeline, kohya):
            expected = job.deltas(family, other, scaled=True)
            job.add(f"{family}_{writer.__name__}", family, writer(other, folder).path, expected=expected)


def add_other_kinds(job: Job) -> None:
    """LoHa, LoKr … on one linear layer; what must be true of each is that the host takes it without a complaint."""
    up, down = torch.randn(WIDTH, 4), torch.randn(4, WIDTH)
    square, norm = torch.randn(WIDTH, WIDTH) * 0.01, "lora_unet_down_blocks_0_resnets_0_norm1"
    kinds = {
        "loha": {"hada_w1_a": up, "hada_w1_b": down, "hada_w2_a": up, "hada_w2_b": down, "alpha": torch.tensor(2.0)},
        "lokr": {"lokr_w1": torch.randn(16, 16), "lokr_w2_a": torch.randn(20, 2), "lokr_w2_b": torch.randn(2, 20)},
        "glora": {"a1.weight": up, "a2.weight": down, "b1.weight": up, "b2.weight": down},
        "oft": {"oft_blocks": torch.randn(10, 32, 32) * 0.1},
        "diff": {"diff": square},
        "set_weight": {"set_weight": square},
        "dora": {"lora_up.weight": up, "lora_down.weight": down, "dora_scale": torch.rand(WIDTH, 1) + 1},
        "dora_in": {"lora_up.weight": up, "lora_down.weight": down, "dora_scale": torch.rand(1, WIDTH) + 1},
    }
    for name, parts in kinds.items():
        file = job.write(name, {f"{QUERY}.{part}": tensor for part, tensor in parts.items()})
        job.add(name, "sd15", file, keys=[QUERY_KEY])
    job.add(
        "norm",
        "sd15",
        job.write("norm", {f"{norm}.w_norm": torch.randn(WIDTH), f"{norm}.b_norm": torch.randn(WIDTH)}),
        keys=[f"diffusion_model.input_blocks.1.0.in_layers.0.{part}" for part in ("bias", "weight")],
    )
    projection, key = "lora_unet_down_blocks_0_attentions_0_proj_in", "diffusion_model.input_blocks.1.1.proj_in.weight"
    expected = job.folder / "expected_linear_on_conv.safetensors"
    save_file({key: (up @ down)[:, :, None, None].contiguous()}, expected)
    file = job.write("linear_on_conv", {f"{projection}.lora_up.weight": up, f"{projection}.lora_down.weight": down})
    job.add("linear_on_conv", "sd15", file, expected=str(expected))


def add_sd3(job: Job) -> None:
    """Query, key and value of a fused weight, in diffusers' and in PEFT's names; depth 1 makes it 64 wide."""
    factors = {name: (torch.randn(64, 2), torch.randn(2, 64)) for name in "qkv"}
    expected = job.folder / "expected_sd3.safetensors"
    save_file({QKV_KEY: torch.cat([up @ down for up, down in factors.values()])}, expected)
    for prefix in ("transformer", "base_model.model", "transformer.base_model.model"):
        tensors = {}
        for name, (up, down) in factors.items():
            module = f"{prefix}.transformer_blocks.0.attn.to_{name}"
            tensors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
        job.add(f"sd3 {prefix}", "sd3", job.write(f"sd3_{prefix}", tensors), expected=str(expected))
    fc1 = "transformer.transformer_blocks.0.ff.net.0.proj"
    lora = {f"{fc1}.lora_A.weight": torch.ones(1, 64), f"{fc1}.lora_B.weight": torch.ones(256, 1)}
    file = job.write("sd3_s_plus", lora | TargetTimeEmbedding(320, 1280).state_dict_for_file())
    job.add("S+ on SD3", "sd3", file)


def add_refusals(job: Job) -> None:
    sd15, sdxl = job.loras / "kohya.safetensors", job.loras / "sdxl" / "kohya.safetensors"
    job.add("SDXL on SD 1.5", "sd15", sdxl)
    job.add("SD 1.5 on SDXL", "sdxl", sd15)
    job.add("SD 1.5 on SD 2.1", "sd21v", sd15)
    job.add("SDXL on SD3", "sd3", sdxl)
    tensors = load_file(sd15)
    shape = {**tensors, "lora_unet_conv_in.lora_down.weight": torch.ones(4, 9, 3, 3)}
    job.add("shape", "sd15", job.write("shape", shape))
    job.add("partial", "sd15", job.write("partial", {**tensors, "lora_unet_nowhere.diff": torch.ones(2)}))
    narrow = TargetTimeEmbedding(WIDTH, 640).state_dict_for_file()
    job.add("S+ width", "sd15", job.write("s_plus_narrow", tensors | narrow))
    dora = make_adapter(make_unet("sd15", WIDTH), target_modules(make_unet())[:3], use_dora=True)
    (job.loras / "dora_peft").mkdir()
    job.add("DoRA of PEFT", "sd15", diffusers_pipeline(dora, job.loras / "dora_peft").path)
    (job.loras / "truncated.safetensors").write_bytes(sd15.read_bytes()[:100])
    job.add("truncated", "sd15", job.loras / "truncated.safetensors")


def target_time(job: Job) -> dict:
    tensors = load_file(job.loras / "kohya.safetensors")
    torch.manual_seed(0)
    embedding = TargetTimeEmbedding(WIDTH, EMBED)
    torch.nn.init.normal_(embedding.linear_2.weight, std=0.02)
    torch.nn.init.normal_(embedding.linear_2.bias, std=0.1)
    job.write("s_plus", tensors | embedding.state_dict_for_file())
    return {"sd15": {"plain": "kohya.safetensors", "s_plus": "s_plus.safetensors", "strength": STRENGTH}}


@pytest.fixture(scope="module")
def results(comfyui: Host, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """One run of the driver over all cases."""
    folder = tmp_path_factory.mktemp("lora")
    job = Job(folder)
    for add in (add_formats, add_other_kinds, add_sd3, add_refusals):
        add(job)
    checkpoints = {family: str(tiny_checkpoints.write(family, folder)) for family in tiny_checkpoints.FAMILIES}
    content = {"loras": str(job.loras), "checkpoints": checkpoints, "cases": job.cases, "target_time": target_time(job)}
    (folder / "job.json").write_text(json.dumps(content))
    comfyui.run_driver(DRIVER, folder / "job.json", folder / "results.json", timeout=240)
    answers = json.loads((folder / "results.json").read_text())
    yield answers
    for file in folder.rglob("*.safetensors"):
        file.unlink()


def check_exact(result: dict) -> None:
    """All of the file's modules matched, the weights changed as PEFT changes them, and nothing else happened."""
    assert "error" not in result, result
    matched, modules = map(int, result["text"].splitlines()[1].split()[1:4:2])
    assert matched == modules == len(result["changed"])
    assert result["as_expected"] and result["distance"] < 1e-5
    assert result["untouched"] and result["restored"] and not result["complaints"] and not result["same"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_arrives_complete_and_exact(results, name):
    check_exact(results[name])


@pytest.mark.parametrize("family", ["sdxl", "sd21v"])
@pytest.mark.parametrize("writer", ["diffusers_pipeline", "kohya"])
def test_other_families_arrive_complete_and_exact(results, family, writer):
    check_exact(results[f"{family}_{writer}"])


@pytest.mark.parametrize("prefix", ["transformer", "base_model.model", "transformer.base_model.model"])
def test_parts_of_sd3_s_fused_weights_are_patched(results, prefix):
    result = results[f"sd3 {prefix}"]
    assert "matched 3 of 3 modules" in result["text"] and result["changed"] == [QKV_KEY]
    assert result["distance"] < 1e-5 and result["restored"] and not result["complaints"]


@pytest.mark.parametrize(
    "name", ["loha", "lokr", "glora", "oft", "diff", "set_weight", "dora", "dora_in", "norm", "linear_on_conv"]
)
def test_other_kinds_are_taken_without_a_complaint(results, name):
    result = results[name]
    assert "matched 1 of 1 modules" in result["text"] and result["as_expected"], result
    assert result["distance"] < 1e-5 and not result["complaints"] and result["restored"]


def test_strength_0_returns_the_model_and_still_reports(results):
    result = results["strength_0"]
    assert result["same"] and result["changed"] == [] and "strength 0 (nothing applied)" in result["text"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SDXL on SD 1.5", "made for SDXL: cross-attention 2048 wide; this model is SD 1.5: 768"),
        ("SD 1.5 on SDXL", "made for SD 1.5: cross-attention 768 wide; this model is SDXL: 2048"),
        ("SD 1.5 on SD 2.1", "made for SD 1.5: cross-attention 768 wide; this model is SD 2.x: 1024"),
        ("SDXL on SD3", "made for SDXL (cross-attention 2048 wide): none of the file's 141 modules exist in this one"),
        ("shape", "lora_unet_conv_in has lora_down.weight (4, 9, 3, 3)"),
        ("S+ width", "target-time embedding is 320 to 640 wide, this model's time embedding 320 to 1280"),
        ("S+ on SD3", "is no UNet of ComfyUI's"),
        ("DoRA of PEFT", "is a DoRA in PEFT's form"),
        ("truncated", "truncated.safetensors is truncated"),
    ],
)
def test_refusals_say_why_and_leave_the_model_as_it_was(results, name, message):
    result = results[name]
    assert message in result["error"], result
    assert result["type"] == "ValueError" and result["untouched"] and ".safetensors" in result["error"]


def test_names_the_model_lacks_are_reported(results):
    lines = results["partial"]["text"].splitlines()
    matched, modules = map(int, lines[1].split()[1:4:2])
    assert (modules - matched, lines[2]) == (1, "not in this model (1): lora_unet_nowhere")
    assert results["partial"]["restored"] and len(results["partial"]["changed"]) == matched


def test_target_time_agrees_with_a_direct_forward(results):
    measured = results["target_time"]
    assert measured["forward_distance"] <= 1e-5
    assert measured["effect_of_embedding"] > 1e-3 and measured["effect_of_s"] > 1e-3


def test_other_samplers_are_told_their_next_time(results):
    measured = results["target_time"]
    assert measured["euler_times"] == [749.0, 499.0, 249.0, 0.0]
    assert measured["euler_distance"] <= 1e-5 and measured["guided_distance"] <= 1e-5
    assert measured["euler_effect"] > 1e-3 and measured["karras_is_finite"]


def test_sampler_tcd_tells_the_target_times_of_its_gamma(results):
    assert results["target_time"]["told"] == [float(int(0.7 * t)) for t in (759, 499, 259)] + [0.0]


def test_target_patch_survives_clones_and_moves(results):
    measured = results["target_time"]
    assert measured["clones_share"] and measured["dtype_ignored"] and measured["moving_copies"]


def test_a_sampler_without_sigmas_is_refused(results):
    assert "told each step's target time" in results["target_time"]["without_sigmas"]


def lora_graph(file: str, strength: float = 1.0) -> w.Graph:
    """Load a LoRA, sample with a stock sampler, show the report."""
    g = w.Graph()
    setup = w.load(g, "sd15")
    loaded = g.add("TCDToolkit_LoraLoader", model=setup.model, lora_name=file, strength=strength)
    latent = w.empty_latent(g, "sd15")
    w.finish(g, setup, w.ksampler(g, loaded, latent, setup, sampler_name="euler", scheduler="simple"))
    w.show(g, loaded.slot(1))
    return g


def test_node_in_a_workflow(server: Client, base_directory: Path):
    """Report and picture follow the file and the strength; a file that changes on disk is read again."""
    folder, adapter = base_directory / "models" / "loras", make_adapter(make_unet("sd15", WIDTH))
    path = kohya(adapter, folder).path
    graph = lora_graph(path.name)
    first = server.run(graph)
    assert "kohya, rank 4" in first.text("text") and "recommended by the file: steps 4, gamma 0.3" in first.text("text")
    plain = server.run(lora_graph(path.name, 0.0)).latent()
    half = server.run(lora_graph(path.name, 0.5)).latent()
    assert (first.latent() - plain).std() > 0.01 * plain.std() and (half - plain).std() > 0.01 * plain.std()
    server.run(graph, fresh=False)
    assert set(graph) == server.run(graph, fresh=False).cached
    save_file({key: tensor * 0 for key, tensor in load_file(path).items()}, path)
    again = server.run(graph, fresh=False)
    assert "the file recommends no settings" in again.text("text")
    torch.testing.assert_close(again.latent(), plain)
    path.write_bytes(b"")
    with pytest.raises(WorkflowError, match=r"kohya\.safetensors is empty"):
        server.run(graph)
