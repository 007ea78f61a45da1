"""The quality pages in a real browser: every control does what it says, by hand and by key."""

import numpy as np
import pytest
import torch
from browser import browser, needs_browser
from monai.data import MetaTensor
from test_page import folding, registered
from toys import Grid

from bundle.pages import QualityPaged
from bundle.pages.batch_page import batch_page

pytestmark = needs_browser
# Voxels of 1 mm from the patient's right to left, posterior to anterior, inferior to superior, as RAS has them.
GRID = Grid(np.diag([1.0, 1.0, 1.0, 1.0]), (21, 17, 15))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pair():
    """A pair with labels, maps, landmarks, and a field that folds; its left half is bright."""
    data = registered(GRID, ddf=folding(GRID.shape, 2), labels=True)
    bright = torch.zeros(1, *GRID.shape)
    bright[:, :10] = 1.0  # x below the middle: RAS, the patient's left
    images = {f"{name}_image": MetaTensor(bright, affine=GRID.affine) for name in ("native_fixed", "native_moving")}
    moved = MetaTensor(bright.flip(2).roll(2, 1), affine=GRID.affine)
    maps = {
        f"{side}_maps": MetaTensor(bright.roll(k, 3), affine=GRID.affine) for k, side in enumerate(("fixed", "moving"))
    }
    metrics = data["metrics"] | {"tre_mm": {"1": {"before": 4.0, "after": 1.5}}}
    warped = {"warped_image": moved, "aligned_image": moved}
    return {**data, **images, **warped, **maps, "metrics": metrics, "fixed_structures": {"gland": 1}}


CONTROLS = ["v", "o", "c", "g", "d", "j", "x", "l", "m"]


def test_every_control_of_the_explorer_works(pair, page, tmp_path):
    html = QualityPaged()(pair)["page"].decode()
    seen = page.use(
        html,
        tmp_path,
        """
        const explore = document.getElementById("explore");
        const [axial, coronal, sagittal] = explore.querySelectorAll("figure");
        const captions = () => [...explore.querySelectorAll("figcaption")].map((caption) => caption.textContent);
        const half = (data, width, left) => data.reduce((sum, value, index) =>
          sum + (index % 4 === 0 && ((index / 4) % width < width / 2) === left ? value : 0), 0);
        await key("x"); await key("l"); await key("c");
        document.querySelector("[name=view]").value = "fixed";
        document.querySelector("form").dispatchEvent(new Event("input"));
        await frame();
        const width = axial.querySelector("canvas").width;
        seen.right = half(pixels(0), width, true); seen.left = half(pixels(0), width, false);
        document.querySelector("[name=view]").value = "blend";
        await key("x"); await key("l"); await key("c");
        seen.changed = {};
        for (const name of CONTROLS) {
          const before = pixels(0).join();
          await key(name);
          seen.changed[name] = before !== pixels(0).join();
          if (!"vom".includes(name)) await key(name);
        }
        seen.magenta = false;
        await key("j");
        const data = pixels(0);
        const magenta = (i) => data[i] > 240 && data[i + 1] < 60 && data[i + 2] > 240;
        for (let i = 0; i < data.length; i += 4) seen.magenta ||= magenta(i);
        const start = captions();
        await key("ArrowUp");
        seen.key = [start, captions()];
        coronal.querySelector("canvas").dispatchEvent(new WheelEvent("wheel", { deltaY: 1, cancelable: true }));
        await frame();
        seen.wheel = captions();
        const slider = sagittal.querySelector("input");
        slider.value = 3;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        await frame();
        seen.slider = captions();
        const canvas = axial.querySelector("canvas"), box = canvas.getBoundingClientRect();
        const corner = { clientX: box.left + 1, clientY: box.bottom - 1, buttons: 1 };
        canvas.dispatchEvent(new PointerEvent("pointerdown", corner));
        await frame();
        seen.corner = [captions(), explore.querySelector("output").textContent];
        const landmark = explore.querySelector("[data-landmark]");
        seen.landmark = landmark.textContent.replace(/\\s+/g, " ").trim();
        landmark.click();
        await frame();
        seen.there = [captions(), explore.querySelector("output").textContent];
        const swipe = document.querySelector("[name=amount]").value;
        await key("ArrowLeft");
        seen.swipe = document.querySelector("[name=amount]").value - swipe;
        """.replace("CONTROLS", str(CONTROLS)),
    )
    # Radiological: the patient's right, which is dark, is on the left of the picture.
    assert seen["left"] > 10 * seen["right"]
    assert seen["changed"] == dict.fromkeys(CONTROLS, True)
    assert seen["magenta"]
    start, moved = seen["key"]
    numbers = [int(caption.split()[2]) for caption in start]
    assert [caption.split(",")[0] for caption in start] == ["axial", "coronal", "sagittal"]
    assert moved == [f"axial, slice {numbers[0] + 1} of 15", *start[1:]]
    assert seen["wheel"] == [moved[0], f"coronal, slice {numbers[1] + 1} of 17", moved[2]]
    assert seen["slider"][2] == "sagittal, slice 4 of 21"
    # The lower left corner of the axial picture: the patient's right, posterior.
    captions, place = seen["corner"]
    assert captions[1:] == ["coronal, slice 17 of 17", "sagittal, slice 1 of 21"]
    assert place.startswith("x 20.0, y 0.0, z ")
    assert seen["landmark"] == "gland 4.0 → 1.5 mm"
    x, y, z = GRID.centre
    assert seen["there"][1].startswith(f"x {x:.1f}, y {y:.1f}, z {z:.1f} mm (RAS): displacement ")
    assert seen["swipe"] == 5


def test_without_scripts_the_page_keeps_its_still_pictures(pair, page, tmp_path):
    policy = """<meta http-equiv="Content-Security-Policy" content="script-src 'none'">"""
    page.open(QualityPaged()(pair)["page"].decode().replace("<head>", f"<head>{policy}"), tmp_path)
    html = page.evaluate("document.documentElement.outerHTML")
    assert '<section id="explore" aria-labelledby="explore-title" hidden="">' in html
    assert html.count("<svg") == 3 * 9 + 3 + 1


def test_a_picture_is_explored_in_its_one_plane(page, tmp_path):
    html = registered(Grid(np.eye(4), (24, 18, 1)), ddf=torch.full((2, 24, 18), 3.0), picture=True)["page"].decode()
    seen = page.use(
        html,
        tmp_path,
        """
        seen.canvases = document.querySelectorAll("canvas").length;
        await key("g");
        seen.bright = pixels(0).filter((value) => value > 100).length > 1000;
        seen.text = document.querySelector("output").textContent;
        """,
    )
    assert (seen["canvases"], seen["bright"]) == (1, True)
    assert seen["text"].startswith("column 12, row 9: displacement 4.2 px")


def test_pairs_of_a_run_are_sorted_and_filtered(pair, page, tmp_path):
    shown = QualityPaged()(pair)
    pairs = []
    for name, after, verdict in (("b10", 0.5, "check"), ("b9", 0.875, "good"), ("a", None, "good")):
        metrics = shown["metrics"] | {"pair_id": name, "dsc": {"1": {"before": 0.25, "after": after}}}
        metrics["verdict"] = metrics["verdict"] | {"verdict": verdict, "reasons": []}
        pairs.append({"metrics": metrics, "thumbnail": shown["thumbnail"]})
    pairs.append({"pair_id": "c", "error": "cannot be read"})
    seen = page.use(
        batch_page(pairs),
        tmp_path,
        """
        const rows = () => all(".pairs tbody tr:not([hidden])").map((row) => row.cells[1].textContent);
        const click = (title) => all("thead button").find((one) => one.textContent.includes(title)).click();
        seen.as_they_came = rows();
        click("pair"); seen.by_name = rows();
        click("DSC"); seen.up = rows();
        click("DSC"); seen.down = rows();
        click("verdict"); seen.worst = rows();
        const form = document.getElementById("filter");
        form.querySelector("[value=good]").click(); seen.no_good = rows();
        form.elements.text.value = "CANNOT read";
        form.dispatchEvent(new Event("input")); seen.found = rows();
        seen.count = form.querySelector("output").textContent;
        """,
    )
    assert seen["as_they_came"] == ["b10", "b9", "a", "c"]
    assert seen["by_name"] == ["a", "b9", "b10", "c"]
    # What has no number comes last, either way.
    assert seen["up"][:2] == ["b10", "b9"]
    assert seen["down"][:2] == ["b9", "b10"]
    assert seen["worst"][:2] == ["c", "b10"]
    assert set(seen["no_good"]) == {"b10", "c"}
    assert seen["found"] == ["c"]
    assert seen["count"] == "1 of 4 shown"


# The text that can be read without scrolling sideways; what has a bar of its own for that is left out.
VISIBLE = """
  const cut = (one) => one.getBoundingClientRect().right > innerWidth + 0.5 && !one.closest(".wide, svg, [hidden]");
  seen.wide = document.documentElement.scrollWidth;
  seen.cut = all("body *").filter(cut).map((one) => one.outerHTML.slice(0, 80));
"""


@pytest.mark.parametrize("width", [420, 1200])
def test_pages_fit_a_phone_and_a_desk(pair, page, tmp_path, width):
    shown = QualityPaged()(pair)
    name = "a_patient_whose_name_is_as_long_as_the_names_of_files_may_be_" * 3
    done = {"metrics": shown["metrics"] | {"pair_id": name}, "thumbnail": shown["thumbnail"]}
    lost = {"pair_id": f"{name}2", "error": f"{name}.nii.gz: cannot be read"}
    page.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    try:
        for html in (batch_page([done, lost]), shown["page"].decode()):
            seen = page.use(html, tmp_path, VISIBLE)
            assert seen["wide"] <= width
            assert seen["cut"] == []
        rows = 'seen.rows = new Set(all("#explore figure").map((one) => one.offsetTop)).size;'
        assert page.use(shown["page"].decode(), tmp_path, rows)["rows"] == (3 if width == 420 else 1)
        titles = 'all(".cards [data-title]").map((one) => getComputedStyle(one, "::before").content)'
        seen = page.use(batch_page([done]), tmp_path, f"seen.titles = {titles};")
        # On a phone the table's head is gone: every number says what it is.
        assert (seen["titles"][:2] == ['"DSC"', '"TRE (mm)"']) == (width == 420)
    finally:
        page.ask("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
