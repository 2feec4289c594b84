"""CLIP's vocabulary follows from its merges, and captions become the ids that the models were trained on."""

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from training.models import ModelError
from training.models.vocabulary import END, PAD, SIZE, START, merges, tokenizers, vocabulary, write_vocabulary

IDS = {  # by OpenAI's tokenizer
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "A   Photo of\na CAT": [320, 1125, 539, 320, 2368],
    "": [],
    "!": [256],
    "2 dogs": [273, 3255],
}


def test_the_vocabulary_is_clips():
    known = vocabulary()
    assert len(known) == SIZE == 49_408 and len(merges()) == 48_894
    assert list(known.values()) == list(range(SIZE))
    places = {"!": 0, "~": 93, "!</w>": 256, "in": 512, START: 49406, END: 49407}
    assert {token: known[token] for token in places} == places


def test_the_vocabulary_is_comfyuis():
    folder = Path(os.environ.get("COMFYUI_PATH", "")) / "comfy" / "sd1_tokenizer"
    if not os.environ.get("COMFYUI_PATH") or not folder.is_dir():
        pytest.skip("set COMFYUI_PATH to a ComfyUI")
    assert vocabulary() == json.loads((folder / "vocab.json").read_text("utf-8"))
    assert "\n".join(merges()) in (folder / "merges.txt").read_text("utf-8")
    (ours,), (theirs,) = tokenizers("sd15"), tokenizers("sd15", folder)
    text = "an 8k photo of Zoë's “naïve” café, (masterpiece:1.2), 東京 🐈 isn't it?"
    assert ours(text).input_ids == theirs(text).input_ids


@pytest.mark.parametrize("family", PAD)
def test_captions_are_77_ids_filled_up_as_each_encoder_knows_it(family):
    for tokenizer, pad in zip(tokenizers(family), PAD[family], strict=True):
        fill = vocabulary()[pad]
        for caption, ids in IDS.items():
            padded = tokenizer(caption, padding="max_length", truncation=True).input_ids
            assert padded == [49406, *ids, 49407] + [fill] * (75 - len(ids))
        long = tokenizer("cat " * 200, padding="max_length", truncation=True).input_ids
        assert long == [49406] + [2368] * 75 + [49407]
    assert [vocabulary()[pad] for pad in PAD["sdxl"]] == [49407, 0]


def test_what_is_written_is_what_is_read(tmp_path):
    write_vocabulary(tmp_path)
    before = sha256((tmp_path / "vocab.json").read_bytes()).hexdigest()
    (tokenizer,) = tokenizers("sd21", tmp_path)
    assert tokenizer("a cat").input_ids == [49406, 320, 2368, 49407]
    assert sha256((tmp_path / "vocab.json").read_bytes()).hexdigest() == before
    assert str(tmp_path) not in tokenizer.name_or_path


def test_a_folder_without_a_vocabulary_says_where_there_is_one(tmp_path):
    with pytest.raises(ModelError, match=r"vocab\.json and merges\.txt missing.*comfy/sd1_tokenizer"):
        tokenizers("sd15", tmp_path)
    write_vocabulary(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(("a", START, END))}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ModelError, match="no CLIP vocabulary: 3 tokens, not 49,408"):
        tokenizers("sd15", tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(ModelError, match="can't be read"):
        tokenizers("sd15", tmp_path)
