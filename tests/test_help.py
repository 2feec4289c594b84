"""Every node has a help page in both languages: each input is on it, its pictures and links exist, no HTML is in it."""

import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "web" / "docs"
NODES = json.loads((REPOSITORY / "tests/host/snapshots/nodes.json").read_text(encoding="utf-8"))
LANGUAGES = ("en", "zh")
SECTIONS = {
    "en": ("## Inputs", "## Output", "## Typical values", "## Pitfalls"),
    "zh": ("## 输入", "## 输出", "## 常用取值", "## 常见问题"),
}
CHINESE = r"[\u4e00-\u9fff]"
SHAPE = {"headings": r"(?m)^#+ ", "items": r"(?m)^(?:- |\d\. )", "rows": r"(?m)^\|", "pictures": r"!\["}

each_node = pytest.mark.parametrize("node", sorted(NODES))
each_language = pytest.mark.parametrize("language", LANGUAGES)


def page(node: str, language: str) -> str:
    """English lies where the front end falls back to, so that it serves every other language too."""
    file = DOCS / f"{node}.md" if language == "en" else DOCS / node / f"{language}.md"
    return file.read_text(encoding="utf-8")


def names(language: str, node: str) -> dict:
    return json.loads((REPOSITORY / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))[node]


def items(text: str) -> dict[str, str]:
    """The list items under Inputs, by each bold name in an item's head."""
    inputs = re.split(r"(?m)^## (?:Inputs|输入)$", text)[1].split("\n## ")[0]
    found = {}
    for item in re.split(r"(?m)^- ", inputs)[1:]:
        head = re.split(r"[:：]", item, maxsplit=1)[0]
        found |= {name: head for name in re.findall(r"\*\*(\w+)\*\*", head)}
    return found


def test_there_are_pages_for_the_nodes_and_no_others():
    pages = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    assert pages == {f"{node}.md" for node in NODES} | {f"{node}/zh.md" for node in NODES}


@each_language
@each_node
def test_page_has_its_title_its_sections_and_every_input(node, language):
    text = page(node, language)
    assert text.startswith(f"# {names(language, node)['display_name']}\n")
    for section in SECTIONS[language]:
        assert f"\n{section}" in text, section
    assert list(items(text)) == sorted(items(text), key=list(items(text)).index)
    assert set(items(text)) == {each["name"] for each in NODES[node]["inputs"]}


@each_node
def test_chinese_page_calls_inputs_as_the_node_does(node):
    for name, head in items(page(node, "zh")).items():
        label = names("zh", node)["inputs"][name]["name"]
        assert label == name or re.search(rf"\*\*{name}\*\*（{label}[，）]", head), (name, label, head)


@each_node
def test_optional_inputs_are_called_so(node):
    for each in NODES[node]["inputs"]:
        for language, word in (("en", "(optional)"), ("zh", "可选")):
            said = word in items(page(node, language))[each["name"]]
            assert said == each["optional"], (each["name"], language)


@each_language
@each_node
def test_pictures_and_links_exist(node, language):
    text = page(node, language)
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", text)
    assert pictures
    for words, address in pictures:
        assert len(words) > 10 and '"' not in words  # older front ends put it into the attribute as it is
        assert (DOCS / address).is_file() and address.startswith("img/"), address
    links = [address for _, address in re.findall(r"(?<!!)\[([^\]]*)\]\(([^)]*)\)", text)]
    assert all(address.startswith("https://") for address in links)  # others lead elsewhere in older front ends


def test_every_picture_is_shown():
    shown = "".join(page(node, "en") for node in NODES)
    assert [file.name for file in (DOCS / "img").iterdir() if f"img/{file.name}" not in shown] == []


@each_language
@each_node
def test_page_holds_no_html(node, language):
    assert not re.search(r"</?[a-zA-Z!]", page(node, language))


@each_node
def test_chinese_page_is_as_complete_as_the_english(node):
    english, chinese = (page(node, language) for language in LANGUAGES)
    for what, pattern in SHAPE.items():
        assert len(re.findall(pattern, english)) == len(re.findall(pattern, chinese)), what
    numbers = [set(re.findall(r"\d+(?:\.\d+)?", text)) for text in (english, chinese)]
    assert numbers[0] == numbers[1], numbers[0] ^ numbers[1]
    code = [set(re.findall(r"`([^`]+)`", text)) for text in (english, chinese)]
    assert code[1] <= code[0] <= code[1] | {"steps", "denoise"}  # which have Chinese names
    letters, characters = len(re.findall(r"\w", english)), len(re.findall(CHINESE, chinese))
    assert 2.2 * characters + len(re.findall(r"\w", chinese, re.A)) > 0.85 * letters  # some 2.2 letters a character
