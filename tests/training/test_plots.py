"""Pictures of a run: of the right kind and size, with the right things at the right place, missing pieces left out."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from training.plots import loss_curve, metric_against_gamma, metric_against_steps, sample_grid, smooth
from training.report import Results, to_json
from training.sample_grid import GAP, HAIR, TOP

STEPS = (2, 4, 8, 20)
METHODS = {"euler": None, "ddim": None, "dpmpp_2s": None, "lcm": 1.0, "tcd": 0.2}
ALL = ("fd", "fd_pixels", "accuracy", "complexity")
LIMIT = 400_000  # bytes


def report(methods=METHODS, gammas=(0.0, 0.2, 1.0), steps=STEPS, losses=(), scale=1.0, metrics=("fd",), **fields):
    fields = {"floors": {"fd": 0.5, "accuracy": 0.99}} | fields
    results = Results({"name": "digits", "measure": {"gamma": 0.2}}, "abc", 899, **fields)
    students = {(method, gamma) for method, gamma in methods.items()}
    students |= {("tcd", gamma) for gamma in gammas if "tcd" in methods}
    for method, gamma in students:
        for n in steps:
            for metric in metrics:
                for seed in range(3 if gamma is not None else 1):
                    results.add(metric, method, n, (1 + scale / n) * (1 + 0.01 * seed), 0, seed, gamma)
    rng = np.random.default_rng(0)
    for name in losses:
        results.losses[name] = {"step": list(range(400)), "loss": list(np.exp(rng.normal(size=400)))}
    return to_json(results)


def assert_png(path, width=range(1590, 1611), height=range(300, 1700)):
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width in width and image.height in height
        assert path.stat().st_size < LIMIT
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels[0] == 255).all() and (pixels[:, -1] == 255).all()  # white paper
    return pixels


def has(pixels, colour):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(pixels.astype(int) - rgb).max(axis=-1) < 12).sum() > 200


BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"  # TCD, LCM, DPM++(2S)

# -- curves --------------------------------------------------------------------------------------------------------


def test_every_method_is_drawn_in_its_own_colour(tmp_path):
    assert metric_against_steps(report(metrics=ALL), tmp_path / "steps.png")
    pixels = assert_png(tmp_path / "steps.png")
    assert has(pixels, BLUE) and has(pixels, VERMILION) and has(pixels, GREEN)
    assert metric_against_gamma(report(metrics=ALL), tmp_path / "gamma.png")
    assert_png(tmp_path / "gamma.png")


def test_methods_that_were_not_measured_are_not_drawn(tmp_path):
    assert metric_against_steps(report({"ddim": None, "tcd": 0.2}), tmp_path / "steps.png")
    pixels = assert_png(tmp_path / "steps.png")
    assert has(pixels, BLUE) and not has(pixels, VERMILION) and not has(pixels, GREEN)


@pytest.mark.parametrize(("scale", "steps"), [(0.1, (4,)), (1e2, (1, 2, 3, 50)), (1e5, STEPS)])
def test_any_range_of_values_and_steps_is_drawn(tmp_path, scale, steps):
    drawn = report(steps=steps, scale=scale)
    assert metric_against_steps(drawn, tmp_path / "steps.png")
    assert metric_against_gamma(drawn, tmp_path / "gamma.png")
    assert_png(tmp_path / "steps.png")
    assert_png(tmp_path / "gamma.png")


def test_values_that_are_not_finite_are_left_out(tmp_path):
    drawn = report(scale=math.inf)
    drawn["fd"]["tcd"]["4"] = {"mean": 1.0, "std": 0.0, "n": 1}
    assert metric_against_steps(drawn, tmp_path / "steps.png")
    assert metric_against_gamma(drawn, tmp_path / "gamma.png")
    pixels = assert_png(tmp_path / "steps.png")
    assert not has(pixels, VERMILION)


def test_curves_over_gamma_without_a_floor(tmp_path):
    assert metric_against_gamma(report(floors={}), tmp_path / "gamma.png")
    assert_png(tmp_path / "gamma.png")


@pytest.mark.parametrize("losses", [("teacher", "tcd", "lcm"), ("tcd",), ("tcd", "tcf2", "tcf_s_plus")])
def test_losses_are_drawn(tmp_path, losses):
    drawn = report(losses=losses)
    drawn["loss"]["tcd"]["loss"][7] = None  # was not finite
    assert loss_curve(drawn, tmp_path / "loss.png")
    pixels = assert_png(tmp_path / "loss.png")
    assert has(pixels, BLUE)
    assert has(pixels, VERMILION) == ("lcm" in losses)


def test_losses_that_reach_zero_are_drawn_too(tmp_path):
    drawn = report(losses=("tcd",))
    drawn["loss"]["tcd"]["loss"][-1] = 0.0
    assert loss_curve(drawn, tmp_path / "loss.png")
    assert_png(tmp_path / "loss.png")


@pytest.mark.parametrize("plot", [metric_against_steps, metric_against_gamma, loss_curve])
def test_nothing_measured_is_no_file(tmp_path, plot):
    assert not plot(report({}, ()), tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


def test_smoothing_keeps_a_level_and_passes_over_gaps():
    values = np.full(100, 3.0)
    values[[0, 50]] = math.nan
    assert smooth(values) == pytest.approx(np.full(100, 3.0))
    assert np.isnan(smooth([math.nan] * 9)).all()
    ramp = smooth(np.arange(200.0))
    assert ramp[50:150] == pytest.approx(np.arange(50.0, 150.0))


# -- sample grid ---------------------------------------------------------------------------------------------------


def pictures(value, n=10, shape=(8, 8)):
    return np.full((n, *shape), value, dtype=np.float32)


def levels(pixels):
    """Grey levels that fill at least one whole picture (8 × 8 pixels, each 4 × 4 or larger), white aside."""
    grey, counts = np.unique(pixels[..., 0][np.ptp(pixels, axis=-1) == 0], return_counts=True)
    return {int(v) for v, count in zip(grey, counts, strict=True) if count >= 10 * 32 * 32 and v < 255}


def test_each_cell_shows_its_methods_pictures(tmp_path):
    values = {"ddim": (-1.0, -0.75, -0.5, -0.25), "tcd": (0.0, 0.25, 0.5, 0.75)}
    rows = {m: {n: pictures(v) for n, v in zip(STEPS, row, strict=True)} for m, row in values.items()}
    sample_grid(rows, tmp_path / "grid.png")
    pixels = assert_png(tmp_path / "grid.png")
    assert levels(pixels) == {round((v + 1) * 127.5) for row in values.values() for v in row}
    places = {}  # middle of the pixels of each level
    for method, row in values.items():
        for n, v in zip(STEPS, row, strict=True):
            where = np.argwhere((pixels == round((v + 1) * 127.5)).all(axis=-1))
            places[method, n] = np.median(where, axis=0)
    for n in STEPS:
        assert places["ddim", n][0] < places["tcd", n][0]  # methods go down
        assert places["ddim", n][1] == pytest.approx(places["tcd", n][1], abs=40)
    for method in values:
        across = [places[method, n][1] for n in STEPS]
        assert across == sorted(across) and across[-1] - across[0] > 800  # steps go to the right


def test_pictures_stand_in_reading_order_pixel_for_pixel(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.choice([-1.0, -0.5, 0.0, 0.5], size=(12, 8, 8))
    sample_grid({"": {4: images}}, tmp_path / "grid.png", columns=5, lines=2)
    cell = assert_png(tmp_path / "grid.png", width=range(1500, 1611))[TOP:, GAP:, 0]  # no label: it starts at once
    scale = (1600 - 2 * GAP - 4 * HAIR) // (5 * 8)
    pitch = 8 * scale + HAIR
    for i in range(10):
        y, x = i // 5 * pitch, i % 5 * pitch
        shown = cell[y + scale // 2 : y + 8 * scale : scale, x + scale // 2 : x + 8 * scale : scale]
        assert (shown == np.rint((images[i] + 1) * 127.5)).all()


def test_inverted_pictures_are_ink_on_paper(tmp_path):
    sample_grid({"tcd": {n: pictures(0.5) for n in STEPS}}, tmp_path / "grid.png", invert=True)
    assert levels(assert_png(tmp_path / "grid.png", height=range(100, 1000))) == {round(0.5 * 127.5)}


def test_colour_pictures_and_tensors_are_shown(tmp_path):
    image = torch.tensor([1.0, -1.0, -0.5]).view(1, 3, 1, 1).expand(10, 3, 16, 16)
    sample_grid({"tcd": {n: image for n in STEPS}}, tmp_path / "grid.png")
    pixels = assert_png(tmp_path / "grid.png", height=range(100, 1000))
    assert (pixels == [255, 0, 64]).all(axis=-1).sum() >= 40 * 32 * 32


def test_large_pictures_are_reduced(tmp_path):
    sample_grid({"tcd": {n: pictures(0.0, shape=(512, 512)) for n in STEPS}}, tmp_path / "grid.png")
    assert 128 in levels(assert_png(tmp_path / "grid.png", height=range(100, 1000)))


def test_cells_without_pictures_stay_white(tmp_path):
    rows = {"ddim": {2: pictures(-0.5, n=3)}, "lcm": {}, "LCM weights, γ = 0.2": {20: pictures(0.0)}}
    sample_grid(rows, tmp_path / "grid.png")
    pixels = assert_png(tmp_path / "grid.png", width=range(1200, 1611))
    assert (pixels[:, -10:] == 255).all() and (pixels[:, :10] == 255).all()  # the long label fits


def test_files_are_shown_as_arrays_are(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), np.uint8)
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for image, file in zip(images, files, strict=True):
        Image.fromarray(image).save(file)
    arrays = images.transpose(0, 3, 1, 2) / 127.5 - 1
    for invert in (False, True):
        sample_grid({"a": {4: files}}, tmp_path / "files.png", columns=2, invert=invert)
        sample_grid({"a": {4: arrays}}, tmp_path / "arrays.png", columns=2, invert=invert)
        assert (tmp_path / "files.png").read_bytes() == (tmp_path / "arrays.png").read_bytes()


def test_files_are_held_one_at_a_time(tmp_path):
    """64 pictures of 3 MB each: 200 MB if they were all held, and as floats four times that."""
    Image.new("RGB", (1024, 1024), (10, 20, 30)).save(tmp_path / "large.png")
    rows = {f"m{i}": {n: [tmp_path / "large.png"] * 8 for n in STEPS} for i in range(2)}
    tracemalloc.start()
    try:
        sample_grid(rows, tmp_path / "grid.png", columns=4, lines=2)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert (assert_png(tmp_path / "grid.png", height=range(100, 1000)) == [10, 20, 30]).all(axis=-1).sum() > 50_000


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_file_that_is_no_picture_is_named(tmp_path, content):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match="cut.png is (not a picture|damaged)"):
        sample_grid({"a": {4: [tmp_path / "cut.png"]}}, tmp_path / "grid.png")


def test_a_grid_is_no_larger_than_its_fullest_cell(tmp_path):
    sample_grid({"a": {4: pictures(0.0, n=3)}}, tmp_path / "three.png", columns=3, lines=1)
    sample_grid({"a": {4: pictures(0.0, n=3)}}, tmp_path / "ten.png", columns=5, lines=2)
    assert (tmp_path / "three.png").read_bytes() == (tmp_path / "ten.png").read_bytes()


def test_long_names_are_cut(tmp_path):
    sample_grid({"a-name-without-end-" * 20 + ", γ = 0.2": {4: pictures(0.0)}}, tmp_path / "grid.png")
    assert 128 in levels(assert_png(tmp_path / "grid.png", height=range(100, 1000)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "needs pictures"),
        ({"tcd": {}}, "needs pictures"),
        ({"tcd": {2: pictures(0.0), 4: pictures(0.0, shape=(16, 16))}}, "all of one size"),
        ({"tcd": {2: np.zeros((8, 8))}}, r"pictures of 'tcd' must be \(n, H, W\)"),
        ({"tcd": {2: np.zeros((10, 4, 8, 8))}}, r"got \(10, 4, 8, 8\)"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        sample_grid(rows, tmp_path / "grid.png")
    assert not list(tmp_path.iterdir())


def test_a_users_matplotlib_settings_do_not_matter(tmp_path):
    import matplotlib

    rows = {"tcd": {n: pictures(0.0) for n in STEPS}}
    sample_grid(rows, tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "black", "savefig.dpi": 50}):
        sample_grid(rows, tmp_path / "odd.png")
        assert matplotlib.rcParams["font.size"] == 30  # and are left as they were
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "odd.png").read_bytes()
