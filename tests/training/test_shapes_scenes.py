"""Scenes of shapes: captions read back, refused with a reason, parts that share nothing, pictures as geometry says."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from training.families.shapes_pictures import RGB, SIDE, _render, as_floats, draw_pictures
from training.families.shapes_scenes import (
    ABSENT,
    ARRANGEMENTS,
    ATTRIBUTES,
    CLASSES,
    COUNTS,
    PARTS,
    SHAPES,
    Scene,
    Thing,
    attributes,
    draw_scenes,
    read,
)
from training.families.shapes_text import EMPTY, LENGTH, WORDS, TextEncoder, captions, tokens

EXAMPLE = "a small red circle left of a blue square on white"


# ---- captions ----


def test_a_caption_is_read_as_a_person_reads_it():
    small, medium = Thing("circle", "red", "small", "plain"), Thing("square", "blue", "medium", "plain")
    scene = read(EXAMPLE)
    assert scene == Scene("white", (small, medium), ("left of",))
    assert scene.cells() == [(0.0, 0.5), (1.0, 0.5)]
    three = read("a red cross below a large green dotted diamond left of a blue triangle on black")
    assert three.cells() == [(0.0, 1.0), (0.0, 0.0), (1.0, 0.0)]
    assert read("a striped blue square in the centre on grey".replace("striped blue", "blue striped")).cells() == [
        (0.5, 0.5)
    ]


@pytest.mark.parametrize("part", PARTS)
def test_every_scene_s_caption_is_read_back_as_that_scene(part):
    scenes = draw_scenes(part, 1000, seed=3)
    assert [read(scene.caption()) for scene in scenes] == scenes
    assert captions(tokens([scene.caption() for scene in scenes])) == [scene.caption() for scene in scenes]
    assert max(len(scene.caption().split()) for scene in scenes) <= LENGTH


def test_told_the_other_way_round_it_is_the_same_scene_in_the_same_part():
    mirrored = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for scene in draw_scenes("train", 500, seed=1):
        if len(scene.things) > 1:
            where = tuple(mirrored[relation] for relation in reversed(scene.where))
            other = Scene(scene.background, scene.things[::-1], where)
            assert other.caption() != scene.caption() and other.in_order() == scene.in_order()
            assert other.part() == "train" and (attributes([other]) == attributes([scene])).all()


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a red circl in the centre on white", r'"circl" \(word 3\) .* did you mean "circle"\?'),
        ("a small circle in the centre on white", r'"circle" \(word 3\) stands where "red", .* or "purple" is wanted'),
        ("a red circle on white", r'"on" \(word 4\) stands where "in the centre", .* "left of".* is wanted'),
        ("a red circle left of a blue square left of a red cross on white", r'"left" .* "on", "above" or "below"'),
        ("a red circle left of a blue square", r'its end stands where "on", "above" or "below" is wanted'),
        ("a red circle in the centre on pink", r'"pink" \(word 8\)'),
        (EXAMPLE + " background", r'"background" \(word 12\) stands where the end is wanted'),
        ("", r'its end stands where "a" is wanted'),
        ("A red circle in the centre on white", r'"A" \(word 1\)'),
    ],
)
def test_a_caption_outside_the_grammar_is_refused_at_its_word(caption, message):
    with pytest.raises(ValueError, match=message) as refused:
        read(caption)
    assert f'"{caption}" is no caption of shapes' in str(refused.value)
    if caption:
        with pytest.raises(ValueError, match="is no caption of shapes"):
            tokens([EXAMPLE, caption])


def test_the_empty_caption_is_the_empty_condition_and_words_are_told_apart():
    assert (tokens([""]) == EMPTY).all() and captions(tokens([""])) == [""]
    assert len(set(WORDS)) == len(WORDS)
    encoder = TextEncoder(64).eval()
    with torch.no_grad():
        states = encoder(tokens([EXAMPLE, EXAMPLE.replace("left", "right"), ""]))
    assert states.shape == (3, LENGTH, 64)
    assert (states[0] - states[1]).abs().max() > 0.01 and (states[0] - states[2]).abs().max() > 0.01


# ---- draws ----


def test_scenes_and_pictures_are_the_seed_s_alone_in_another_process_too():
    code = "from training.families.shapes_pictures import draw_pictures as p\n"
    code += "from training.families.shapes_scenes import draw_scenes as d\n"
    code += "import hashlib; s = d('train', 50, 7); print(hashlib.sha256(repr(s).encode()).hexdigest(),"
    code += " hashlib.sha256(p(s, 7).numpy().tobytes()).hexdigest())"
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(outputs) == 1 and len(outputs.pop().split()) == 2
    scenes = draw_scenes("train", 50, 7)
    assert draw_scenes("train", 20, 7) == scenes[:20] and draw_scenes("train", 50, 8) != scenes
    assert torch.equal(draw_pictures(scenes, 7), draw_pictures(scenes, 7))
    assert not torch.equal(draw_pictures(scenes, 7), draw_pictures(scenes, 8))


def test_the_parts_share_no_scene_and_have_their_shares_of_all():
    drawn = {part: {repr((s.background, s.in_order())) for s in draw_scenes(part, 3000, 0)} for part in PARTS}
    for one, other in itertools.combinations(PARTS, 2):
        assert not drawn[one] & drawn[other]
    parts = [Scene("white", (Thing(*t),), ("in the centre",)).part() for t in itertools.product(*_words())]
    assert abs(parts.count("train") / len(parts) - 6 / 8) < 0.08


def _words():
    from training.families.shapes_scenes import COLOURS, SIZES, TEXTURES

    return SHAPES, COLOURS, SIZES, TEXTURES


def test_every_attribute_occurs_as_often_as_it_should_whatever_the_part():
    for part in PARTS:
        told = attributes(draw_scenes(part, 4000, 5))
        counts = [(told != ABSENT)[:, 2 + 4 * slot].mean() for slot in range(3)]
        np.testing.assert_allclose(counts, [1, COUNTS[1] + COUNTS[2], COUNTS[2]], atol=0.03)
        for column, (name, classes) in enumerate(zip(ATTRIBUTES, CLASSES, strict=True)):
            values = told[:, column][told[:, column] != ABSENT]
            shares = np.bincount(values, minlength=classes) / len(values)
            if name != "arrangement":
                np.testing.assert_allclose(shares, 1 / classes, atol=0.05, err_msg=f"{name} of {part}")
            assert len(shares) == classes and shares.min() > 0
    assert len(ARRANGEMENTS) == 11


# ---- pictures ----


AREAS = {  # of a shape of radius r, in r²
    "circle": math.pi,
    "square": (2 * 0.88) ** 2,
    "triangle": 3 * math.sqrt(3) * 0.6**2,  # equilateral, by its incircle's radius
    "diamond": 2 * 1.15**2,
    "cross": 4 * 0.36 * (2 - 0.36),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("middle", [(16.0, 16.0), (16.31, 15.83)])
def test_a_shape_covers_its_area(shape, middle):
    """Black on white: what is missing of the white is the shape's area; corners, which are cut, cost a little."""
    radius = torch.tensor([[6.5, 0, 0]])
    centre = torch.tensor([[middle, (0, 0), (0, 0)]])
    colour, phase, ground = torch.zeros(1, 3, 3), torch.zeros(1, 3, 2), torch.ones(1, 3)
    number = torch.tensor([[SHAPES.index(shape), 0, 0]])
    picture = _render(centre, radius, colour, phase, ground, number, torch.zeros_like(number))
    assert picture.shape == (1, 3, SIDE, SIDE)
    assert (1 - picture[0, 0]).sum().item() == pytest.approx(AREAS[shape] * 6.5**2, rel=0.03)


def test_a_picture_shows_what_its_scene_says():
    scene = read("a large red square left of a large blue square on black")
    picture = (as_floats(draw_pictures([scene], 0))[0] + 1) / 2
    for (x, y), name in (((8, 16), "red"), ((23, 16), "blue"), ((16, 2), "black")):
        np.testing.assert_allclose(picture[:, y, x], RGB[name], atol=0.035)
    edge = picture[0, 16, :9]
    assert edge.diff().min() > -0.01 and ((edge > 0.1) & (edge < 0.7)).sum() <= 2  # a soft edge of a pixel or two


def test_textures_differ_in_what_they_darken():
    shares = []
    for texture in ("", "striped ", "dotted "):
        picture = as_floats(draw_pictures([read(f"a large green {texture}square in the centre on white")] * 20, 0))
        inside = picture[:, 1, 13:19, 13:19]
        shares.append((inside < 0.0).float().mean().item())
    assert shares[0] == 0 and shares[1] > 0.3 and 0.1 < shares[2] < shares[1]
