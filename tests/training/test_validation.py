"""Validation grids: whose pictures they are, how they look, and that the training beside them does not notice."""

import logging
import random
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from training_support.runs import files_in
from training_support.tiny import (
    CLASSES,
    TinyFamily,
    differing,
    distilled,
    randomise,
    tiny_recipe,
    tiny_unet,
    tuned_copy,
)

from tcd_core import VPSchedule
from training.checkpoint_lora import save_averaged_lora
from training.disk import OutputError
from training.lora_file import load_lora
from training.objective import TrajectoryDistillation
from training.samplers import sample_solver, sample_sss, start_noise
from training.validation import GAP, LEFT, TOP, Validation, ValidationSettings, draw_grid

PROMPTS = ("one", "two")
SETTINGS = ValidationSettings(PROMPTS, every=2, steps=(1, 2, 4), gamma=0.3, w=1.5, teacher_steps=3, seed=7)
HEADS = ["teacher, 3 steps", "1 step", "2 steps", "4 steps"]


class PromptedFamily(TinyFamily):
    """The tiny family, asked for pictures: a prompt is a class."""

    latent_shape = (1, 4, 4)
    decoded = 0

    def sample_condition(self, prompts):
        labels = torch.tensor([PROMPTS.index(prompt) for prompt in prompts])
        torch.rand(3)  # a text encoder that draws random numbers
        return self.condition(labels), self.condition(torch.full_like(labels, CLASSES))

    def decode(self, latents):
        assert latents.device.type == "cpu" and not latents.requires_grad
        self.decoded += 1
        random.random(), np.random.rand(), torch.rand(1)
        return latents.tanh()


def task_of(*family, **sections) -> TrajectoryDistillation:
    """A task whose student, average and teacher all differ."""
    task = TrajectoryDistillation(PromptedFamily(*family), tiny_recipe(**sections))
    randomise(task.trainable(), 0.2, seed=1)
    randomise(task.saved.weights, 0.2, seed=2)
    return task


def network(family, unet, label: int, w: float | None = None):
    """A plain UNet as the samplers call it, guided or not."""

    @torch.no_grad()
    def call(x, t, s):
        told = family.condition(torch.tensor([label]))
        c = family.output(unet, x, torch.tensor([float(t)]), told)
        if w is None:
            return c
        return c + w * (c - family.output(unet, x, torch.tensor([float(t)]), family.condition(torch.tensor([CLASSES]))))

    return call


# -- whose pictures they are ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [(), ("v_prediction", VPSchedule.scaled_linear().zero_terminal_snr()), ("flow",)])
def test_columns_are_the_guided_teacher_and_the_averaged_student(tmp_path, family):
    task = task_of(*family)
    heads, pictures = Validation(task, SETTINGS, tmp_path).pictures()
    assert heads == HEADS and pictures.shape == (2, 4, 1, 4, 4)
    base = tiny_unet()
    average = tuned_copy(base, task.saved.weights)
    for row in (0, 1):
        x, kind = start_noise((1, 1, 4, 4), 7 + row), (task.family.prediction, task.family.schedule)
        solver = "euler" if family == ("flow",) else "ddim"
        expected = [sample_solver(solver, network(task.family, base, row, 1.5), *kind, x, 3)]
        student = network(task.family, average, row)
        expected += [sample_sss(student, *kind, x, steps, 0.3, 7 + row) for steps in (1, 2, 4)]
        torch.testing.assert_close(pictures[row], torch.cat(expected).tanh(), atol=2e-5, rtol=1e-4)


def test_student_is_the_one_that_is_saved(tmp_path):
    task = task_of()
    _, pictures = Validation(task, SETTINGS, tmp_path).pictures()
    save_averaged_lora(tmp_path / "saved.safetensors", task, {}, "fp32")
    unet = tiny_unet()
    load_lora(unet, tmp_path / "saved.safetensors")
    kind = (task.family.prediction, task.family.schedule)
    expected = sample_sss(network(task.family, unet, 1), *kind, start_noise((1, 1, 4, 4), 8), 4, 0.3, 8).tanh()
    torch.testing.assert_close(pictures[1, 3:], expected, atol=2e-5, rtol=1e-4)


def test_target_times_reach_the_student(tmp_path):
    task = task_of(objective={"form": "tcf_s_plus"})
    told = []
    task.student.target_embedding.register_forward_hook(lambda module, given, out: told.append(given[0].tolist()))
    Validation(task, SETTINGS, tmp_path).pictures()
    assert len(told) == 2 * 7 and all(len(s) == 1 for s in told) and len({s[0] for s in told}) > 2


def test_second_order_students_take_two_evaluations_a_step(tmp_path):
    task = task_of(objective={"form": "tcf2", "tcf2_form": "data"})
    task.family.calls = []
    heads, _ = Validation(task, SETTINGS, tmp_path).pictures()
    assert heads == ["teacher, 3 steps", "2 steps", "4 steps"]
    assert len([x for x, _, _ in task.family.calls if len(x) == 1]) == 2 * (2 + 4)


def test_teacher_is_sampled_once_and_noise_stays(tmp_path):
    task = task_of()
    validation = Validation(task, SETTINGS, tmp_path)
    _, first = validation.pictures()
    randomise(task.saved.weights, 0.3, seed=5)
    task.family.calls = []
    _, second = validation.pictures()
    assert torch.equal(first[:, 0], second[:, 0]) and not torch.equal(first[:, 1:], second[:, 1:])
    assert len(task.family.calls) == 2 * (1 + 2 + 4) and task.family.decoded == 2
    _, again = Validation(task, SETTINGS, tmp_path).pictures()
    assert torch.equal(again, second)


# -- the training beside them --------------------------------------------------------------------------------------


def drawing(folder, every=2):
    """A change to a task: grids are drawn as the loop's hooks would."""

    def change(task):
        validation = Validation(task, SimpleNamespace(**{**vars(SETTINGS), "every": every}), folder, last=6)
        follow = task.after_step

        def after_step():
            follow()
            task.student.train()
            validation.on_step(task.saved.updates, 0.0, 0.0, None)
            validation.on_checkpoint(task.saved.updates)

        task.after_step = after_step

    return change


def test_training_is_the_same_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("training_support.tiny.TinyFamily", PromptedFamily)
    losses, states = distilled(tmp_path / "a")
    watched, same = distilled(tmp_path / "b", change=drawing(tmp_path / "validation"))
    assert losses == watched and not differing(states, same)
    assert files_in(tmp_path / "validation") == {f"step_0000000{step}.png" for step in (2, 4, 6)}


def test_grids_come_at_their_steps_and_at_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr("training_support.tiny.TinyFamily", PromptedFamily)
    for every, steps in ((4, (4, 6)), (0, (6,))):
        distilled(tmp_path / f"run {every}", change=drawing(tmp_path / f"{every}", every))
        assert files_in(tmp_path / f"{every}") == {f"step_0000000{step}.png" for step in steps}


def test_modes_gradients_and_random_states_stay(tmp_path):
    task = task_of()
    task.student.train()
    task.student.network.conv_in.eval()
    before = {name: module.training for name, module in task.student.named_modules()}
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = torch.rand(2).tolist(), np.random.rand(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    modes = set()
    task.student.network.conv_out.register_forward_hook(lambda module, *rest: modes.add(module.training))
    Validation(task, SETTINGS, tmp_path).draw(2)
    assert (torch.rand(2).tolist(), np.random.rand(), random.random()) == expected
    assert {name: module.training for name, module in task.student.named_modules()} == before and modes == {False}
    assert torch.is_grad_enabled() and all(p.grad is None for p in task.student.parameters())


def test_networks_are_evaluated_in_the_context_given_and_decoded_outside_it(tmp_path):
    task, dtypes = task_of(), []
    task.student.network.conv_out.register_forward_hook(lambda module, given, out: dtypes.append(out.dtype))
    decode = task.family.decode
    task.family.decode = lambda latents: decode(latents) + 0 * (latents[0, 0] @ latents[0, 0]).to(latents.dtype)
    context = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
    _, pictures = Validation(task, SETTINGS, tmp_path, autocast=context).pictures()
    assert set(dtypes) == {torch.bfloat16} and pictures.dtype == torch.float32 and pictures.isfinite().all()


# -- trouble -------------------------------------------------------------------------------------------------------


def test_too_little_memory_is_told_once_and_ends_the_grids(tmp_path, caplog):
    task = task_of()

    def too_large(latents):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    task.family.decode = too_large
    validation = Validation(task, SETTINGS, tmp_path / "v")
    with caplog.at_level(logging.WARNING):
        for step in (2, 4):
            validation.on_step(step, 0.0, 0.0, None)
    (record,) = caplog.records
    assert "no validation pictures at step 2 and after: too little memory" in record.getMessage()
    assert task.student.training and not (tmp_path / "v").exists()


def test_a_picture_that_cannot_be_written_is_told_and_the_next_is_tried(tmp_path, caplog):
    (tmp_path / "v").touch()
    shown = []
    validation = Validation(task_of(), SETTINGS, tmp_path / "v", shown=lambda *what: shown.append(what))
    with caplog.at_level(logging.WARNING):
        validation.on_step(2, 0.0, 0.0, None)
        (tmp_path / "v").unlink()
        validation.on_step(4, 0.0, 0.0, None)
    assert "no validation picture at step 2, the training goes on" in caplog.text
    assert shown == [(4, tmp_path / "v" / "step_00000004.png")] and shown[0][1].is_file()


def test_no_prompts_draw_nothing(tmp_path):
    Validation(task_of(), ValidationSettings(()), tmp_path / "v", last=6).on_step(6, 0.0, 0.0, None)
    assert not (tmp_path / "v").exists()


# -- the picture ---------------------------------------------------------------------------------------------------


def drawn(path, pictures, prompts=PROMPTS, heads=("a", "b", "c")):
    draw_grid(pictures, prompts, heads, path)
    return np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(int)


def cell(image, row: int, column: int, height: int, width: int):
    y, x = TOP + row * (height + GAP), LEFT + column * (width + GAP)
    return image[y : y + height, x : x + width]


def test_cells_are_the_pictures_pixel_for_pixel(tmp_path):
    pictures = torch.rand(2, 3, 3, 120, 200, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image = drawn(tmp_path / "g.png", pictures)
    assert image.shape == (TOP + 2 * (120 + GAP), LEFT + 3 * (200 + GAP), 3)
    for row in range(2):
        for column in range(3):
            expected = ((pictures[row, column] + 1) * 127.5).round().permute(1, 2, 0).numpy()
            assert abs(cell(image, row, column, 120, 200) - expected).max() <= 1
    assert image[TOP:, :LEFT].min() < 128 and image[:TOP, LEFT:].min() < 128  # words
    assert image[:TOP, :LEFT].min() == 255


def test_small_pictures_are_enlarged_and_large_ones_reduced_by_whole_numbers(tmp_path):
    small = drawn(tmp_path / "s.png", torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 1, 8, 8))
    tile = cell(small, 1, 2, 160, 160)[..., 0]
    assert (tile.reshape(8, 20, 8, 20) == tile[::20, ::20][:, None, :, None]).all() and len(np.unique(tile)) > 20
    halves = torch.tensor([-1.0, 1.0]).repeat(512)[None, :].expand(2, 3, 1, 1024, 1024)
    large = drawn(tmp_path / "l.png", halves)
    assert large.shape[1] == LEFT + 3 * (512 + GAP)
    assert set(np.unique(cell(large, 0, 0, 512, 512))) <= {127, 128}


@pytest.mark.filterwarnings("error")
def test_any_words_are_shown_as_they_are(tmp_path):
    """Formulas to matplotlib, letters that its font has not, a prompt longer than its row, none at all."""
    prompts = ("$5 and 6^{$", "\\frac{_$$", "一只猫 🐈", "a very long prompt, " * 40, "", "W" * 100)
    image = drawn(tmp_path / "g.png", torch.zeros(6, 1, 3, 160, 160), prompts, ["$x$"])
    rows = [image[TOP + i * (160 + GAP) : TOP + i * (160 + GAP) + 160, :LEFT] for i in range(6)]
    assert all(row.min() < 128 for row in rows)
    assert all(cell(image, i, 0, 160, 160).std() == 0 for i in range(6))
    assert all((image[TOP + i * (160 + GAP) - GAP // 2, :LEFT] == 255).all() for i in range(1, 6))  # within their rows


def test_values_out_of_range_are_clipped_and_what_is_not_finite_is_grey(tmp_path):
    pictures = torch.tensor([5.0, -5.0, torch.nan])[None, :, None, None, None].expand(1, 3, 1, 96, 96)
    image = drawn(tmp_path / "g.png", pictures, ("x",))
    assert [int(cell(image, 0, column, 96, 96).mean()) for column in range(3)] == [255, 0, 128]


def test_a_grid_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "g.png"
    drawn(path, torch.zeros(2, 3, 3, 8, 8))
    before = path.read_bytes()
    with pytest.raises(OutputError, match="was not written"):
        draw_grid(torch.zeros(1, 1, 3, 8, 8), ("x",), ("a",), tmp_path / "missing" / "g.png")
    assert path.read_bytes() == before and files_in(tmp_path) == {"g.png"}
