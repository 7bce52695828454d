"""The page of a comparison in a browser: sorted, scrolled, light, dark, wide, narrow.

One test, for the page and the browser take seconds to come up.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leanseg.reports.run_report import report
from leanseg.reports.viewer import viewer_scripts

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("statsmodels", reason="needs leanseg[statistics]")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.fixture
def browser() -> Iterator[sync_api.Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu-sandbox", *WEBGL]
        )


@pytest.fixture
def address(make_run: Callable[..., Path], tmp_path: Path) -> str:
    first = make_run()
    second = first.with_name("other")
    shutil.copytree(first, second)
    return report([first, second], tmp_path / "page.html").as_uri()


def pixels(element: sync_api.Locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def test_a_reader_sorts_scrolls_and_looks(browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(address)

    table = page.locator("#every table")
    column = table.get_by_role("button", name="my run")
    values = []
    for _ in range(2):
        column.click()
        cells = table.locator("tbody td:nth-child(3)").all_inner_texts()
        values.append([float(cell) for cell in cells])
    assert values[0] == sorted(values[0])
    assert values[1] == values[0][::-1] != values[0]

    if viewer_scripts():
        viewer = page.locator(".viewer").first
        viewer.scroll_into_view_if_needed()
        page.locator(".viewer[data-state]").first.wait_for(state="attached", timeout=60_000)
        assert viewer.get_attribute("data-state") == "ready", viewer.get_attribute("data-why")
        canvas, slider = viewer.locator("canvas"), viewer.get_by_label("Axial slice")
        before = pixels(canvas)
        assert before.std() > 10
        slider.focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        moved = pixels(canvas)
        assert (np.abs(moved - before).max(axis=2) > 30).mean() > 0.001
        # The wheel scrolls slices only after a click into them.
        rows, columns = np.nonzero(moved.max(axis=2) > 60)
        inside = {"x": int(columns[len(columns) // 2]), "y": int(rows[len(rows) // 2])}
        places = [viewer.get_by_label(f"{name} slice") for name in ("Axial", "Coronal", "Sagittal")]
        canvas.hover(position=inside)
        for clicks in (0, 1):
            for _ in range(clicks):
                canvas.click(position=inside)
            start = [place.input_value() for place in places]
            page.mouse.wheel(0, 40)
            page.wait_for_timeout(200)
            assert ([place.input_value() for place in places] != start) == bool(clicks)
        shown = pixels(canvas)
        viewer.get_by_label("reference (filled)").uncheck()
        assert (np.abs(pixels(canvas) - shown).max(axis=2) > 30).mean() > 0.001

    for scheme, is_dark in (("light", False), ("dark", True)):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            root = "document.documentElement"
            assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), (scheme, width)
            looks = pixels(page.locator("#scores"))
            assert looks.std() > 10
            assert (np.median(looks) < 60) == is_dark
            # Plots are seen on the ground of either scheme.
            assert pixels(page.locator("#plots img").first).std() > 10
    assert not failed
    assert all(each.startswith(("file:", "data:", "blob:")) for each in asked)

    # Without WebGL pictures remain.
    page = browser.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(address)
    assert not any(viewer.is_visible() for viewer in page.locator(".viewer").all())
    assert pixels(page.locator("#cases img")).std() > 10
