"""report.html: one file without network and script, tables that say what they are, whatever the data is called."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_figures import AS_IN_THE_PAPER, measured, real_model

from training.document import Code, Heading, Paragraph, Picture, Strong, Table
from training.plots import loss_curve, metric_against_gamma, metric_against_steps
from training.report import to_json, to_markdown, write_report
from training.report_html import page, to_html
from training.report_markdown import render

HOSTILE = "</title><script>alert(1)</script><img src=x onerror='alert(2)'>\"' & `x` | [a](javascript:alert(3)) \x00$x"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of each kind of element."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, tag):
        return [data for name, data in self.texts if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(folder, report) of a run with pictures."""
    folder = tmp_path_factory.mktemp("report")
    losses = {"tcd": {"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0]}}
    results = real_model(losses=losses)
    report = to_json(results)
    pictures = [folder / "samples.png"]
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(pictures[0])
    for draw in (metric_against_steps, metric_against_gamma, loss_curve):
        pictures.append(folder / f"{draw.__name__}.png")
        assert draw(report, pictures[-1])
    return folder, write_report(results, folder, pictures)


@pytest.fixture(scope="module")
def html(written):
    return (written[0] / "report.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(html):
    tags = Tags(html)
    assert not tags.all("script") and not tags.all("link") and not tags.all("iframe")
    addresses = [a[key] for _, a in tags.tags for key in ("src", "srcset", "href") if key in a]
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert "@import" not in html and "url(" not in html
    (policy,) = [a["content"] for a in tags.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_plots_are_embedded_for_light_and_dark_and_pictures_as_they_are(html, written):
    tags = Tags(html)
    images, dark = tags.all("img"), tags.all("source")
    assert len(images) == 4 and len(dark) == 3
    svgs = [base64.b64decode(a["src"].partition(",")[2]) for a in images if "svg" in a["src"]]
    darks = [base64.b64decode(a["srcset"].partition(",")[2]) for a in dark]
    assert all(svg.startswith(b"<?xml") and b"#16181c" not in svg for svg in svgs)
    assert all(b"#16181c" in svg for svg in darks) and all("dark" in a["media"] for a in dark)
    assert not any(b"<text" in svg or b"http-equiv" in svg for svg in svgs)  # letters are paths: no font is needed
    (png,) = [a for a in images if "png" in a["src"]]
    assert base64.b64decode(png["src"].partition(",")[2]) == (written[0] / "samples.png").read_bytes()
    assert (png["width"], png["height"]) == ("40", "30")
    assert all(len(a["alt"]) > 20 for a in images)


def test_a_large_picture_is_made_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (800, 800, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "samples.png")
    html = to_html(to_json(measured(AS_IN_THE_PAPER)), [tmp_path / "samples.png"])
    (image,) = [a for a in Tags(html).all("img") if "webp" in a["src"]]
    with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as shown:
        assert shown.size == (800, 800) and shown.format == "WEBP"


def test_every_table_names_its_rows_and_columns(html):
    tables = re.findall(r"<table.*?</table>", html, re.S)
    assert len(tables) > 10
    for table in tables:
        tags = Tags(table)
        assert len(tags.all("caption")) == 1 and tags.text("caption")[0].strip()
        assert {a["scope"] for a in tags.all("th")} <= {"row", "col", "colgroup"}
        rows = table.partition("<tbody>")[2].count("<tr")
        assert sum(a["scope"] == "row" for a in tags.all("th")) == rows > 0
    (group,) = [a for a in Tags(tables[0]).all("th") if a["scope"] == "colgroup"]
    assert group["colspan"] == "4"
    frames = [a for a in Tags(html).all("div") if a.get("class") == "table"]
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in frames)


def test_contents_lead_to_the_headings(html):
    tags = Tags(html)
    targets = [a["id"] for a in tags.all("h2")]
    assert [a["href"] for a in tags.all("a")] == [f"#{name}" for name in targets] and len(set(targets)) == len(targets)


def test_both_writers_say_the_same(written, html):
    """Every figure of the one is in the other."""
    text = (written[0] / "report.md").read_text(encoding="utf-8")
    plain = html.replace("\u00a0", " ")
    cells = {cell.strip() for line in text.splitlines() if line.startswith("|") for cell in line.split("|")}
    figures = {cell for cell in cells if re.match(r"−?\d", cell) and "\\" not in cell}
    assert len(figures) > 150
    assert {cell for cell in figures if cell.replace("<", "&lt;").replace(">", "&gt;") not in plain} == set()


def hostile():
    return real_model(
        tcd=HOSTILE,
        title=HOSTILE,
        about=HOSTILE,
        reference={HOSTILE: HOSTILE},
        conditions={HOSTILE: HOSTILE},
        left_out={HOSTILE: HOSTILE},
        shown={"samples.png": [HOSTILE]},
        versions={HOSTILE: HOSTILE},
        recipe_name=HOSTILE,
    )


def test_names_stay_text(tmp_path):
    results = hostile()
    picture = tmp_path / "samples.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    write_report(results, tmp_path, [picture])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags, harmless = Tags(html), HOSTILE.replace("\x00", " ")
    assert not tags.all("script") and len(tags.all("img")) == 1 and len(tags.all("title")) == 1
    assert not any(key.startswith("on") for _, attributes in tags.tags for key in attributes)
    assert all(a["href"].startswith("#") for a in tags.all("a"))
    assert harmless in tags.text("h1")[0] and harmless in "".join(tags.text("title"))
    assert tags.text("li")[-1] == harmless
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "\x00" not in text
    outside_code = re.sub(r"(?<!\\)(`+) .*? \1", "", text)
    assert not re.search(r"(?<!\\)<(script|img|/title)", outside_code)
    assert not re.search(r"(?<!\\)\]\(javascript", outside_code)


def test_a_table_keeps_its_columns_whatever_stands_in_it():
    """Markdown: a bar, a line's end or code in a cell adds none."""
    table = Table("t", ["", "a|b"], [["x|y\nz", (Code("p|q `r`"), " | ", Strong("s*"))]], numbers=False)
    lines = render([table]).splitlines()
    assert len(lines) == 3 and {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}


def test_names_that_utf8_cannot_hold_are_written(tmp_path):
    """A file's name may hold bytes that are no letters."""
    report = write_report(real_model(tcd="lora-\udcff"), tmp_path)
    assert "lora-?" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert report["methods"]["tcd:my-model"]["title"] == "lora-?"


def test_headings_without_anything_under_them_are_left_out():
    blocks = [
        Heading("Title", 1),
        Heading("Empty"),
        Picture("not-there.png", "a picture"),
        Heading("Full"),
        Paragraph("text"),
    ]
    assert render(blocks) == "# Title\n\n## Full\n\ntext\n"
    assert "Empty" not in page(blocks)


def test_pieces_of_a_text_stand_in_their_order():
    html = page([Heading(("a ", Code("b"), " c ", Strong("d")), 1), Paragraph(["e", Code("f"), "g"])])
    assert '<h1 id="s0">a <code>b</code> c <strong>d</strong></h1>' in html
    assert "<p>e<code>f</code>g</p>" in html
    assert "<title>a b c d</title>" in html


def test_reports_of_digits_are_pages_as_well():
    report = to_json(measured(AS_IN_THE_PAPER))
    html = to_html(report).replace("\u00a0", " ")
    assert "<h1" in html and "TCD and LCM on recipe <code>digits</code>" in html
    assert "1.20 ± 0.01 (2.40×)" in html and "0.66 ± 0.01 &lt; 1.40 ± 0.01" in html
    assert "1.20 ± 0.01 (2.40×)" in to_markdown(report)
