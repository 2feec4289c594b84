"""The translations say of every node and input what the schema says, in both languages, and nothing of any other."""

import json
import os
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LOCALES = REPOSITORY / "locales"
LANGUAGES = ("en", "zh")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
UNTRANSLATED = {"cfg", "gamma", "Sigmas", "vae", "Latent", "TCD Toolkit"}  # as ComfyUI's own translation leaves them


def read(language: str, name: str) -> dict:
    return json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))


def snapshot() -> dict[str, dict]:
    return json.loads((REPOSITORY / "tests/host/snapshots/nodes.json").read_text(encoding="utf-8"))


def texts(value, path: str = "") -> dict[str, str]:
    """Every text of a nested dictionary, by its path."""
    if isinstance(value, str):
        return {path: value}
    return {key: text for name, part in value.items() for key, text in texts(part, f"{path}/{name}").items()}


def numbers(text: str) -> list[str]:
    """Those that are no part of a word, such as img2img."""
    return sorted(set(re.findall(r"(?<![A-Za-z\d.])\d+(?:\.\d+)?", text)))


def of_schema(node: dict) -> dict:
    """What nodeDefs.json holds of a node, in the schema's own words, from the host's /object_info."""
    inputs = {}
    for group in ("required", "optional"):
        for name, (_, *rest) in node["input"].get(group, {}).items():
            inputs[name] = {"name": name, "tooltip": rest[0]["tooltip"]}
    outputs = {}
    for i, (name, tooltip) in enumerate(zip(node["output_name"], node["output_tooltips"], strict=True)):
        outputs[str(i)] = {"name": name, **({"tooltip": tooltip} if tooltip else {})}
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": inputs,
        "outputs": outputs,
    }


def compare_with_schema(nodes: dict[str, dict]) -> None:
    """The English texts are those of the running host's nodes; with UPDATE_SNAPSHOTS set they are written anew."""
    expected = {name: of_schema(nodes[name]) for name in sorted(nodes)}
    if os.environ.get("UPDATE_SNAPSHOTS"):
        text = json.dumps(expected, indent=2, ensure_ascii=False) + "\n"
        (LOCALES / "en" / "nodeDefs.json").write_text(text, encoding="utf-8")
    assert read("en", "nodeDefs") == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_input_and_output_is_there_and_no_other(language):
    translated = read(language, "nodeDefs")
    assert set(translated) == set(snapshot())
    for name, node in snapshot().items():
        assert set(translated[name]["inputs"]) == {each["name"] for each in node["inputs"]}, name
        assert list(translated[name]["outputs"]) == [str(i) for i in range(len(node["outputs"]))], name
        for each in translated[name]["inputs"].values():
            assert set(each) == {"name", "tooltip"} and all(each.values()), name


def test_both_languages_have_the_same_texts():
    files = {language: {file.name for file in (LOCALES / language).iterdir()} for language in LANGUAGES}
    assert files["en"] == files["zh"] and {folder.name for folder in LOCALES.iterdir()} == set(LANGUAGES)
    for file in files["en"]:
        english, chinese = (texts(read(language, Path(file).stem)) for language in LANGUAGES)
        assert set(english) == set(chinese), file


def test_chinese_is_chinese_with_the_numbers_of_the_english():
    for file in (LOCALES / "en").iterdir():
        english, chinese = (texts(read(language, file.stem)) for language in LANGUAGES)
        for path, text in chinese.items():
            assert CHINESE.search(text) or text in UNTRANSLATED, (path, text)
            assert numbers(text) == numbers(english[path]), (path, text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_hold_nothing_that_the_front_end_s_messages_take_for_syntax(language):
    """vue-i18n, which draws them: {…} is a placeholder, @ a link to another message, | a plural."""
    for file in (LOCALES / language).iterdir():
        for path, text in texts(read(language, file.stem)).items():
            assert not re.search(r"[{}@|<>]", text), (path, text)


def test_one_input_has_one_name_and_text_on_every_node():
    """Where the schema says the same of an input on two nodes, so does the translation."""
    english, chinese = (read(language, "nodeDefs") for language in LANGUAGES)
    said: dict[tuple[str, str], dict] = {}
    for node, about in english.items():
        for name, words in about["inputs"].items():
            translated = chinese[node]["inputs"][name]
            assert said.setdefault((name, words["tooltip"]), translated) == translated, (node, name)


def test_settings_of_the_page_are_translated():
    scripts = "".join(file.read_text(encoding="utf-8") for file in (REPOSITORY / "web").glob("*.js"))
    block = re.search(r"settings: \[(.*?)\n  \]", scripts, re.S)[1]
    ids = dict.fromkeys(re.findall(r'const SETTING = "([^"]+)"', scripts) + re.findall(r'\bid: "([^"]+)"', block))
    names = re.findall(r'\bname: "([^"]+)"', block)
    said = {key: about["name"] for key, about in read("en", "settings").items()}
    assert said == dict(zip((key.replace(".", "_") for key in ids), names, strict=True))
    for category in re.findall(r"category: \[([^\]]+)\]", block):
        shown = re.findall(r'"([^"]+)"', category)[:2]
        assert {label: label for label in shown}.items() <= read("en", "main")["settingsCategories"].items()
