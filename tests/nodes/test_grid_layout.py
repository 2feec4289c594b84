"""Lists of settings, where a grid's cells and labels lie, what is in memory while it is drawn; no host needed."""

import itertools
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from support import load_pack_module

grid_settings = load_pack_module("nodes.grid_settings")
grid_layout = load_pack_module("nodes.grid_layout")
grid_picture = load_pack_module("nodes.grid_picture")
lettering = load_pack_module("nodes.lettering")
number_lists = load_pack_module("nodes.number_lists")
GridSettings = grid_settings.GridSettings
TOP_SEED = 2**64 - 1

REFUSED = {  # (steps, gammas, seeds): what the message says
    ("4, x", "0", ""): "steps: 'x' is not a whole number; write whole numbers separated by commas",
    ("4.5", "0", ""): "steps: '4.5' is not a whole number",
    ("4, 0", "0", ""): r"steps: 0 does not lie in 1 … 10000",
    ("10001", "0", ""): r"steps: 10001 does not lie in 1 … 10000",
    ("", "0", ""): "steps: write at least one number, such as 2, 4, 8",
    (" , ", "0", ""): "steps: write at least one number",
    ("4", "", ""): "gammas: write at least one number, such as 0, 0.3, 1",
    ("4", "0, high", ""): "gammas: 'high' is not a number; write numbers separated by commas",
    ("4", "0, 1.5", ""): r"gamma must lie in \[0, 1\], got 1.5",
    ("4", "-0.1", ""): r"gamma must lie in \[0, 1\], got -0.1",
    ("4", "nan", ""): r"gamma must lie in \[0, 1\], got nan",
    ("4", "1e308", ""): r"gamma must lie in \[0, 1\], got 1e\+308",
    ("4", "0", "7, first"): "seeds: 'first' is not a whole number",
    ("4", "0", "-1"): "seeds: -1 does not lie in 0 … 18446744073709551615",
    ("4", "0", str(2**64)): "seeds: 18446744073709551616 does not lie in",
    ("4", "0", "9" * 5000): "^seeds: .{0,120}$",  # more digits than Python converts: quoted in part
    ("1, " * 1000, "0", ""): "1000 steps make 1000 cells, a grid holds 256: shorten",
    ("2, 4, 8", "0 0.2 0.4 0.6 0.8 1", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"): "3 steps × 6 gammas × 15 seeds make 270",
}


@pytest.mark.parametrize("texts", REFUSED, ids=lambda texts: ";".join(texts)[:30])
def test_lists_that_make_no_grid_are_refused_with_what_is_wrong(texts):
    with pytest.raises(ValueError, match=REFUSED[texts]):
        GridSettings.parse(*texts, seed=0)


def test_lists_are_read_as_people_write_them():
    parsed = GridSettings.parse("2,4; 8\n50", "0  .3，1、0.5", f"7, {TOP_SEED}, {2**53 + 1}", seed=3)
    assert parsed == GridSettings((2, 4, 8, 50), (0.0, 0.3, 1.0, 0.5), (7, TOP_SEED, 2**53 + 1))
    assert GridSettings.parse("4", "1", " ", seed=3).seeds == (3,)


def test_the_largest_grid_is_taken_and_a_batch_counts():
    parsed = GridSettings.parse("1 " * 16, "0 " * 16, "", seed=0)
    assert len(list(parsed.runs())) == 256
    with pytest.raises(ValueError, match="16 steps × 16 gammas × 2 batch items make 512 cells.*or the batch"):
        parsed.check_size(2)


def test_labels_and_names_tell_each_cell_s_settings():
    parsed = GridSettings.parse("1, 4", "0, 0.125", "7, 8", seed=0)
    assert parsed.words([5, 6]) == (
        ("1 step", "4 steps"),
        ("gamma 0", "gamma 0.125"),
        ("seed 7, item 5", "seed 7, item 6", "seed 8, item 5", "seed 8, item 6"),
    )
    assert parsed.words([5]).blocks == ("seed 7", "seed 8")
    one = GridSettings.parse("4", "0.3", "", seed=7)
    assert one.words([0]).blocks == ("",) and one.words([0, 1]).blocks == ("item 0", "item 1")
    assert one.names([0]) == ["seed_7_steps_4_gamma_0.3"]
    names = parsed.names([5, 6])
    assert names[:5] == [
        "seed_7_item_5_steps_1_gamma_0",
        "seed_7_item_5_steps_1_gamma_0.125",
        "seed_7_item_5_steps_4_gamma_0",
        "seed_7_item_5_steps_4_gamma_0.125",
        "seed_7_item_6_steps_1_gamma_0",
    ]
    assert len(set(names)) == 16


def words_of(rows: int, columns: int, blocks: int, seed: int = 0):
    """The labels of a grid of so many rows and columns, and as many seeds as blocks."""
    return grid_settings.Words(
        tuple(f"{row} steps" for row in range(rows)),
        tuple(f"gamma 0.{column:03}" for column in range(columns)),
        tuple(f"seed {seed + block}" if blocks > 1 else "" for block in range(blocks)),
    )


def cells_of(layout):
    """(y, x, height, width) of every cell."""
    axes = (range(len(words)) for words in (layout.words.blocks, layout.words.rows, layout.words.columns))
    return [(*layout.place(*place), layout.height, layout.width) for place in itertools.product(*axes)]


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    counts=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)),
    seed=st.sampled_from([0, TOP_SEED - 5]),
)
def test_no_cell_covers_another_or_a_label(height, width, counts, seed):
    layout = grid_layout.Layout(height, width, words_of(*counts, seed))
    grid = grid_picture.GridPicture(layout)
    total = layout.size[0] * layout.size[1]
    labelled = (grid.pixels != grid_picture.PAPER).any(-1)
    covered = np.zeros(layout.size, int)
    for y, x, cell_height, cell_width in cells_of(layout):
        assert y >= 0 and x >= 0 and y + cell_height <= layout.size[0] and x + cell_width <= layout.size[1]
        covered[y : y + cell_height, x : x + cell_width] += 1
    assert covered.max() == 1 and covered.sum() == math.prod(counts) * height * width <= total
    assert not labelled[torch.from_numpy(covered > 0)].any()
    margin = layout.letters.size // 2
    for edge in (labelled[:margin], labelled[-margin:], labelled[:, :margin], labelled[:, -margin:]):
        assert not edge.any()


def ink_of(word: str, size: int) -> np.ndarray:
    """The word as Pillow draws it, cut to its ink: where the layout would have put it does not come in."""
    font = ImageFont.load_default(size)
    image = Image.new("L", (size * len(word), 2 * size))
    ImageDraw.Draw(image).text((0, 0), word, fill=255, font=font)
    ink = np.asarray(image)
    rows, columns = ink.any(1).nonzero()[0], ink.any(0).nonzero()[0]
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / 255


def places_of(ink: np.ndarray, page: np.ndarray) -> list[tuple[float, float]]:
    """The middles (y, x) of wherever this ink stands on the page, which is 0 where there is none."""
    windows = np.lib.stride_tricks.sliding_window_view(page, ink.shape)
    y, x = np.nonzero(np.abs(windows[:, :, ink.shape[0] // 2] - ink[ink.shape[0] // 2]).max(-1) < 0.02)
    exact = [(a, b) for a, b in zip(y, x, strict=True) if np.abs(windows[a, b] - ink).max() < 0.02]
    return [(a + ink.shape[0] / 2, b + ink.shape[1] / 2) for a, b in exact]


@pytest.mark.parametrize("size", [64, 256])
def test_every_label_is_written_next_to_its_cells(size):
    chosen = GridSettings.parse("2, 40", "0.25, 0.3, 1", "7, 81", seed=0)
    layout = grid_layout.Layout(size, size + 8, chosen.words([0]))
    pixels = grid_picture.GridPicture(layout).pixels
    assert torch.equal(pixels[..., 0], pixels[..., 1]) and torch.equal(pixels[..., 0], pixels[..., 2])
    page = ((grid_picture.PAPER - pixels[..., 0]) / (grid_picture.PAPER - grid_picture.INK)).numpy()
    letters = layout.letters.size
    for block, heading in enumerate(["seed 7", "seed 81"]):
        (place,) = places_of(ink_of(heading, letters), page)
        assert abs(place[1] - layout.place(block, 0, 1)[1] - layout.width / 2) < 2
        assert place[0] < layout.place(block, 0, 0)[0] - 1.5 * letters
        for column, word in enumerate(["gamma 0.25", "gamma 0.3", "gamma 1"]):
            y, x = places_of(ink_of(word, letters), page)[block]
            top, left = layout.place(block, 0, column)
            assert abs(x - left - layout.width / 2) < 2 and 0 < top - y < 1.5 * letters
        for row, word in enumerate(["2 steps", "40 steps"]):
            ink = ink_of(word, letters)
            y, x = places_of(ink, page)[block]
            top, left = layout.place(block, row, 0)
            assert abs(y - top - layout.height / 2) < letters / 3
            assert letters / 3 < left - (x + ink.shape[1] / 2) < letters


@pytest.mark.parametrize("cell", [64, 512, 1024, 2048])
def test_labels_grow_with_the_cells(cell):
    for columns in (1, 3, 8):
        letters = grid_layout.Layout(cell, cell, words_of(3, columns, 1)).letters.size
        assert max(12, cell / 21) <= letters <= max(12, cell / 5)
        assert letters >= min(columns * cell / 65, cell / 6)  # 15 pixels on a screen a thousand wide


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(64, 2048),
    width=st.integers(64, 2048),
    counts=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4)),
    longest=st.integers(64, 4096),
)
def test_cells_are_as_large_as_the_limits_allow(height, width, counts, longest):
    layout = grid_layout.fitted_layout(height, width, words_of(*counts), longest)
    pixels = math.prod(layout.size)
    assert pixels <= grid_layout.MAX_PIXELS and max(layout.height, layout.width) <= longest
    whole = min(1.0, longest / max(height, width))
    reduced = layout.height < math.floor(height * whole)
    assert not reduced or pixels > 0.9 * grid_layout.MAX_PIXELS
    assert abs(layout.width / width - layout.height / height) <= 0.5 / width + 0.5 / height + 1e-9


def test_a_narrow_strip_stays_a_pixel_wide():
    layout = grid_layout.fitted_layout(8192, 8, words_of(1, 1, 1), 64)
    assert (layout.height, layout.width) == (64, 1)


@pytest.mark.parametrize("blocks, most", [(2, 1), (4, 0), (5, 2), (9, 0), (16, 0)])
def test_blocks_are_arranged_to_fit_a_screen(blocks, most):
    """At most so many places stay empty, and neither side is thrice the other."""
    layout = grid_layout.Layout(256, 256, words_of(3, 3, blocks))
    assert -blocks % layout.across <= most
    assert 1 / 3 < layout.size[1] / layout.size[0] < 3


def random_pictures(items: int, height: int, width: int, seed: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(items, height, width, channels, generator=torch.Generator().manual_seed(seed))


def test_pictures_stand_in_the_grid_bit_for_bit():
    chosen = GridSettings.parse("1, 2, 3", "0, 1", "7, 8", seed=0)
    drawn = {}

    def pictures_of(run):
        drawn[run] = random_pictures(2, 40, 56, len(drawn), channels=4)  # some VAEs have an alpha channel
        return drawn[run]

    grid = grid_picture.draw_grid(chosen, [0, 1], pictures_of, 2048)
    cells = grid.cells()
    assert len(cells) == 24 == len(chosen.names([0, 1])) and len(drawn) == 12
    for cell, name in zip(cells, chosen.names([0, 1]), strict=True):
        (run,) = [run for run in drawn if f"steps_{run.steps}_gamma_{run.gamma:g}" in name and f"d_{run.seed}" in name]
        assert torch.equal(cell[0], drawn[run][1 if "item_1" in name else 0, ..., :3])
        assert cell.untyped_storage().data_ptr() == grid.pixels.untyped_storage().data_ptr()
    for cell, (y, x, height, width) in zip(cells, cells_of(grid.layout), strict=True):
        assert torch.equal(cell[0], grid.pixels[y : y + height, x : x + width])


def test_of_the_pictures_one_run_s_alone_are_alive():
    chosen = GridSettings.parse("1, 2, 3, 4", "0, 0.5, 1", "", seed=0)
    alive, seen = [], []

    def pictures_of(run):
        seen.append(sum(reference() is not None for reference in alive))
        pictures = random_pictures(1, 300, 300, run.steps)
        alive.append(weakref.ref(pictures))
        return pictures

    grid_picture.draw_grid(chosen, [0], pictures_of, 100)
    assert seen == [0] * 12


def test_larger_pictures_are_reduced_as_pillow_reduces_them(caplog):
    picture = random_pictures(1, 300, 420, seed=1)
    smooth = torch.nn.functional.avg_pool2d(picture.movedim(-1, 1), 9, 1, 4).movedim(1, -1)
    grid = grid_picture.draw_grid(GridSettings.parse("4", "0.3", "", seed=0), [0], lambda run: smooth, 140)
    (cell,) = grid.cells()
    assert cell.shape == (1, 100, 140, 3)
    for channel in range(3):
        expected = Image.fromarray(smooth[0, ..., channel].numpy()).resize((140, 100), Image.BICUBIC)
        assert np.abs(cell[0, ..., channel].numpy() - np.asarray(expected)).max() < 1e-3
    assert not caplog.records


def test_edges_do_not_ring_out_of_range():
    """A bicubic's overshoot would make SaveImage wrap or clip."""
    edges = (torch.arange(96) // 24 % 2).float().expand(96, 96)[..., None].repeat(1, 1, 3)
    small = grid_picture.reduced(edges, 40, 40)
    assert small.min() == 0 and small.max() == 1


def test_a_grid_over_the_limit_is_reduced_and_the_log_says_so(monkeypatch, caplog):
    for module in (grid_layout, grid_picture):
        monkeypatch.setattr(module, "MAX_PIXELS", 1_000_000)
    chosen = GridSettings.parse("1, 2, 3", "0, 1", "", seed=0)
    grid = grid_picture.draw_grid(chosen, [0], lambda run: random_pictures(1, 512, 768, run.steps), 2048)
    height, width = grid.cells()[0].shape[1:3]
    assert 900_000 < math.prod(grid.pixels.shape[:2]) <= 1_000_000 and width / height == pytest.approx(1.5, abs=0.01)
    (record,) = caplog.records
    assert f"768 × 512 are reduced to {width} × {height}" in record.message and "1 megapixels" in record.message


def bitmap_font_alone(size=None):
    """`load_default` of Pillow before 10.1, which takes no size."""
    if size is not None:
        raise TypeError("load_default() takes 0 positional arguments but 1 was given")
    return ImageFont.load_default_imagefont()


def no_freetype(size=None):
    """`load_default` of a Pillow built without FreeType."""
    if size is not None:
        raise ImportError("The _imagingft C module is not installed")
    return ImageFont.load_default_imagefont()


@pytest.mark.parametrize("load_default", [bitmap_font_alone, no_freetype])
def test_older_pillow_writes_in_its_bitmap_font(monkeypatch, load_default):
    monkeypatch.setattr(ImageFont, "load_default", load_default)
    small, large = lettering.Lettering(12), lettering.Lettering(44)
    assert small.ink("gamma 0.3").shape == (small.height, small.width("gamma 0.3"))
    assert np.array_equal(large.ink("4 steps")[::4, ::4], small.ink("4 steps")) and large.height == 44
    assert set(np.unique(small.ink("seed 7"))) == {0.0, 1.0}
    grid = grid_picture.GridPicture(grid_layout.Layout(512, 512, words_of(2, 2, 2)))
    assert (grid.pixels < 0.2).any()
