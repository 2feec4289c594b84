"""Reading the gamma plots off the page, and what tcd_core says should stand there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import ui

from tcd_core import FlowSchedule, GammaSchedule, VPSchedule, inference_times, plan
from tcd_core.schedules import shift_time
from tcd_core.sss import Step

VP = VPSchedule.scaled_linear()
PLOT = """id => app.canvas.graph._nodes.find(n => String(n.id) === id)
    ?.widgets?.find(w => w.name === "tcd_plot")?.element"""


def element(page, node_id: str):
    """The plot of a node, which must be on the page and visible; waits for it."""
    visible = f"id => {{ const plot = ({PLOT})(id); return plot?.checkVisibility() ? plot : null; }}"
    return page.wait_for_function(visible, arg=node_id).as_element()


def table(page, node_id: str) -> list[list[str]]:
    """The rows of the plot's text alternative, as text."""
    ui.settle(page)
    read = "e => [...e.querySelectorAll('tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    return element(page, node_id).evaluate(read)


def note(page, node_id: str) -> str:
    """What the plot says it does not know, or what is wrong."""
    ui.settle(page)
    return element(page, node_id).query_selector(".note").text_content()


def wait_for_table(page, node_id: str, steps: Sequence[Step], names: Sequence[str] | None = None) -> None:
    """Wait until the plot's numbers are these steps'; the table has four decimals."""
    wanted = [[step.t.t, step.s.t, step.b, step.n.t, step.gamma] for step in steps]
    try:
        page.wait_for_function(
            f"""([id, wanted]) => {{
                const rows = [...(({PLOT})(id)?.querySelectorAll("tbody tr") ?? [])];
                return rows.length === wanted.length && wanted.every((row, i) =>
                    row.every((number, j) => Math.abs(number - Number(rows[i].cells[j + 1].textContent)) <= 5.1e-5));
            }}""",
            arg=[node_id, wanted],
            timeout=5000,
        )
    except Exception:
        assert table(page, node_id) == wanted  # for the message
    if names is not None:
        assert [row[0] for row in table(page, node_id)] == list(names)


def run(
    steps: int = 4, gamma: float | dict = 0.3, denoise: float = 1.0, shift: float | None = None, total: int = 1000
) -> list[Step]:
    """What tcd_core plans; gamma as a number or as the fields of a `GammaSchedule`.

    A flow's times are entries of the host's table of `total`, of which number i is the shifted (i + 1) / total; see
    tcd_sigmas in nodes/host.py.
    """
    times: list = inference_times(steps, num_train_timesteps=total, strength=denoise, dense="when needed")
    gamma = GammaSchedule(**gamma) if isinstance(gamma, dict) else gamma
    if shift is None:
        return plan(VP, times, gamma)
    return plan(FlowSchedule(), [shift_time((t + 1) / total, shift) for t in times], gamma)


def handles(page, node_id: str) -> list[dict[str, str]]:
    """Label and value of the handles."""
    ui.settle(page)
    read = """e => [...e.querySelectorAll(".handle")].map(h =>
        ({ label: h.getAttribute("aria-label"), value: Number(h.getAttribute("aria-valuenow")) }))"""
    return element(page, node_id).evaluate(read)


def drag(page, node_id: str, index: int, to: float, steps: int = 8) -> None:
    """Take a handle with the mouse and bring it to the height of a gamma."""
    plot = element(page, node_id)
    box = plot.query_selector_all(".handle")[index].bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    now = handles(page, node_id)[index]["value"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + (now - to) * height_of_one(page, node_id), steps=steps)
    page.mouse.up()
    ui.settle(page)


def height_of_one(page, node_id: str) -> float:
    """Pixels on the screen from gamma 0 to gamma 1: between the two lines of the lower panel."""
    box = "p => p.getBoundingClientRect().top"
    plot = element(page, node_id)
    return plot.query_selector_all(".axis")[1].evaluate(box) - plot.query_selector(".limit").evaluate(box)


def close(value: float) -> pytest.approx:
    """A gamma that a mouse has set: to half a pixel."""
    return pytest.approx(value, abs=0.03)
