"""The loop closed on trained weights: digits teacher and students in a real ComfyUI draw the trainer's digits."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from host_support.trained import ask, distance, merged_weights
from safetensors.torch import save_file
from training_support.tiny import fresh_accelerator

from training import families, phases
from training.families import digits_features
from training.lora_file import load_lora
from training.measure import conditional, load_student
from training.recipe import Recipe, load_recipe, replaced, with_form
from training.run_folder import mark_finished
from training.samplers import sample_sss
from training.stopping import Stop

STEPS, GAMMA, SEED = 4, 0.2, 11
SHORT = {  # as little training as gives digits
    "teacher": {
        "prediction": "v_prediction",
        "zero_terminal_snr": False,
        "width": 64,
        "steps": 220,
        "batch": 64,
        "lr": 4e-3,
        "ema": 0.98,
    },
    "student": {"ema": 0.5},
    "objective": {"w_min": 2.0, "w_max": 2.0},
    "end_times": {"draw": "integers", "draws": 1, "lower_share": 0.5, "segments": [1]},
    "training": {"steps": 40, "batch": 32, "lr": 2e-3},
    "measure": {"against": "validation"},
}
STUDENTS = {"tcd": "tcf1", "s_plus": "tcf_s_plus"}


@dataclass(frozen=True)
class Trained:
    """Runs of one teacher and a student each, by the students' names; what they are judged by."""

    recipes: dict[str, Recipe]
    runs: dict[str, Path]
    family: families.Family
    judge: families.Judge

    def lora(self, name: str) -> Path:
        (phase,) = phases.student_phases(self.recipes[name])
        return phase.artefact(self.runs[name])

    def headless(self, name: str, noise: torch.Tensor) -> torch.Tensor:
        """Latents as the trainer's own measurement samples them, from the run's files."""
        (phase,) = phases.student_phases(self.recipes[name])
        network, _ = load_student(self.family, phase, self.runs[name])
        return self.sampled(conditional(self.family, network, self.judge.labels), noise)

    def sampled(self, network, noise: torch.Tensor) -> torch.Tensor:
        return sample_sss(network, self.family.prediction, self.family.schedule, noise, STEPS, GAMMA, SEED)

    def accuracy(self, latents: torch.Tensor) -> float:
        return self.judge(self.family.decode(latents))["accuracy"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    """A teacher and its TCF(1) and TCF(S+) students, trained here."""
    recipe = replaced(load_recipe("digits"), baseline=False, **SHORT)
    recipes = {name: with_form(recipe, form) for name, form in STUDENTS.items()}
    runs = {name: tmp_path_factory.mktemp(name) for name in recipes}
    for name, folder in runs.items():
        if name != "tcd":
            shutil.copytree(runs["tcd"] / phases.TEACHER, folder / phases.TEACHER)
            mark_finished(folder, phases.TEACHER, 0.0)
        phases.run_phases(families.build(recipes[name]), recipes[name], folder, fresh_accelerator(), Stop())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits_features, "SEEDS", digits_features.SEEDS[:1])  # one classifier can tell digits apart
        family = families.build(recipe)
        family.load(runs["tcd"] / phases.TEACHER)
        return Trained(recipes, runs, family, family.judge())


@pytest.fixture(scope="module")
def host(comfyui, trained, tmp_path_factory):
    """The host's pictures of both students, and what it says of them."""
    folder = tmp_path_factory.mktemp("host")
    cases, labels = [], trained.judge.labels.tolist()
    (folder / "loras").mkdir()
    for name in STUDENTS:
        shutil.copy(trained.lora(name), folder / "loras" / f"{name}.safetensors")
        trained.family.load(trained.runs[name] / phases.TEACHER)
        load_lora(trained.family.network, trained.lora(name))
        save_file(merged_weights(trained.family.network), folder / f"{name}.safetensors")
        case = {"name": name, "file": f"{name}.safetensors", "order": "1", "route": "custom", "labels": labels}
        case |= {"seed": SEED, "steps": STEPS, "gamma": GAMMA, "weights": str(folder / f"{name}.safetensors")}
        cases.append(case)
    teacher = trained.runs["tcd"] / phases.TEACHER
    job = {"teacher": str(teacher), "tokens": str(teacher / "label_tokens.safetensors"), "loras": str(folder / "loras")}
    return ask(comfyui, folder, job | {"prediction": trained.family.prediction}, forward_inputs(trained), cases)


def forward_inputs(trained: Trained) -> dict[str, torch.Tensor]:
    x = torch.randn(3, *trained.family.latent_shape, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([3, 7, trained.family.no_label])
    tokens = trained.family.condition(labels)["encoder_hidden_states"].contiguous()
    return {"x": x, "t": torch.tensor([999.0, 259.0, 0.0]), "tokens": tokens}


def test_the_host_s_network_is_the_teacher(trained, host):
    given = forward_inputs(trained)
    trained.family.load(trained.runs["tcd"] / phases.TEACHER)
    with torch.no_grad():
        expected = trained.family.network(given["x"], given["t"], given["tokens"]).sample
    assert distance(host.tensors["forward"], expected) <= 1e-5


@pytest.mark.parametrize("name", STUDENTS)
def test_every_module_of_the_student_is_matched_and_its_weights_come_out_equal(trained, host, name):
    trained.family.load(trained.runs[name] / phases.TEACHER)
    load_lora(trained.family.network, trained.lora(name))
    count = len(merged_weights(trained.family.network))
    told = host.told[name]
    assert count > 10 and f"matched {count} of {count} modules" in told["report"]
    assert told["weights"] <= 1e-6 and told["stock"] <= 1e-6
    assert ("TCF(S+): the network is told each step's target time" in told["report"]) == (name == "s_plus")


@pytest.mark.parametrize("name", STUDENTS)
def test_four_steps_in_the_host_draw_the_digits_of_the_headless_sampler(trained, host, name):
    found, expected = host.tensors[f"{name}/pictures"], trained.headless(name, host.tensors[f"{name}/noise"])
    assert found.shape == (len(trained.judge.labels), *trained.family.latent_shape)
    assert distance(trained.family.decode(found), trained.family.decode(expected)) <= 1e-3
    accuracy = trained.accuracy(found)
    assert accuracy == pytest.approx(trained.accuracy(expected), abs=1.5 / len(found)) and accuracy > 0.8


def test_the_students_count(trained, host):
    """Teacher and students draw different pictures: the ones above are not equal for want of a difference."""
    trained.family.load(trained.runs["tcd"] / phases.TEACHER)
    network = trained.family.network

    def call(x, times, s, condition):
        return trained.family.output(network, x, times, condition)

    noise, pictures = host.tensors["tcd/noise"], [host.tensors[f"{name}/pictures"] for name in STUDENTS]
    bare = trained.sampled(conditional(trained.family, call, trained.judge.labels), noise)
    assert distance(pictures[0], bare) > 0.1 and distance(*pictures) > 0.02
