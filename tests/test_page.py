"""The quality pages: complete in themselves, the right way up, and with what they promise."""

import base64
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from matplotlib.figure import Figure
from monai.data import MetaTensor
from monai.transforms import Compose
from toys import Grid, affine_ddf, oblique_affine

from bundle.evaluation import PairMetricsd, QualityVerdictd
from bundle.geometry import apply_affine
from bundle.pages import PairPictured, QualityIndex, QualityPaged, QualityPdfd
from bundle.pages.batch_page import batch_page
from bundle.pages.drawing import deformed_grid, outline
from bundle.pages.explorer import Blocks, explored
from bundle.pages.page import numbers
from bundle.pages.slices import shown_slices
from bundle.pages.views import MOST_PIXELS, Volumes
from bundle.results import NativeOutputsd, SavePaird
from bundle.system import DataWarning

LIMITS = {"folded_percent": [0.5, 5.0], "similarity_gain_percent": [1.0, -20.0], "largest_displacement_mm": None}
VOID = {"meta", "image", "circle", "line", "path", "br"}


class Reader(HTMLParser):
    """Collects the addresses of a page and its text, and checks that elements close in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.addresses, self.text = [], [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag == "svg":
            assert dict(attributes)["aria-label"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def registered(grid, ddf=None, labels=False, losses=(2.0, 1.5, 1.0), picture=False, name="a"):
    """A pair after postprocessing; moving and fixed are one grid."""
    shape = grid.shape
    centres = {"fixed": grid.centre, "moving": grid.centre + 2}
    images = {
        side: MetaTensor(
            torch.as_tensor(grid.smooth_image(centre))[None],
            affine=grid.affine,
            meta={"mode": "L"} if picture else {},
        )
        for side, centre in centres.items()
    }
    data = {f"{prefix}{side}_image": image for side, image in images.items() for prefix in ("", "native_")}
    if labels:
        for side, centre in centres.items():
            ball = torch.as_tensor(grid.ball(centre, 5))[None].float()
            data[f"native_{side}_label"] = MetaTensor(ball, affine=grid.affine)
    dims = 2 if shape[2] == 1 else 3
    data |= {
        "pair_id": name,
        "initial_alignment": np.eye(4),
        "pred": {
            "ddf": torch.zeros(dims, *shape[:dims]) if ddf is None else ddf,
            "losses": torch.tensor(losses),
            "loss_identity": losses[0],
            "seconds": torch.tensor(1.0),
            "step_seconds": torch.tensor(0.5),
            "similarity": torch.tensor([-0.25, -0.5]),
        },
    }
    steps = len(losses) - 1
    chain = [NativeOutputsd(), PairMetricsd([0], None, "cpu", steps), QualityVerdictd(LIMITS), QualityPaged()]
    return Compose(chain)(data)


def folding(shape, layers):
    """A field that folds in so many layers of voxels along the first axis."""
    ddf = torch.zeros(3, *shape)
    ddf[0, 5 : 6 + layers] = -3.0 * torch.arange(layers + 1).reshape(-1, 1, 1)
    ddf[0, 6 + layers :] = -3.0 * layers
    return ddf


def sections(html):
    return re.findall(r"<h2>(.*?)</h2>", html)


def assert_complete(html):
    reader = Reader(html)
    assert [address for address in reader.addresses if not address.startswith("data:image/png;base64,")] == []
    assert not re.search(r"https?:|url\(|@import|<script[^>]*src|<link", html)
    assert len(html) < 2e6
    return reader


def test_page_of_a_pair_needs_no_other_file_and_says_everything(fixed_grid):
    result = registered(fixed_grid, ddf=folding(fixed_grid.shape, 2), labels=True)
    html, metrics = result["page"].decode(), result["metrics"]
    text = assert_complete(html).text
    assert metrics["verdict"]["verdict"] == "failed"
    for reason in metrics["verdict"]["reasons"]:
        assert reason in text
    assert sections(html) == ["Images", "Deformation", "Numbers", "Rules of the verdict"]
    # Three views of six and of three panels, three scales, a curve.
    assert html.count("<svg") == 3 * 9 + 3 + 1
    assert 'aria-label="loss over 2 steps, from 2 to 1"' in html
    assert f"{metrics['folded_voxels']} voxels of the fixed image" in text
    for title in ("similarity", "NCC", "DSC of structure 1", "HD95 of structure 1 (mm)", "largest displacement (mm)"):
        assert title in text
    assert f"{metrics['dsc']['1']['after']:.3f}" in text
    assert "within" not in text


def test_contours_are_there_with_labels_only(fixed_grid):
    bare, labelled = (registered(fixed_grid, labels=labels)["page"].decode() for labels in (False, True))
    # Fixed alone, fixed and moving, fixed and warped, in three views.
    assert labelled.count('class="line"') == 3 * 5
    assert bare.count('class="line"') == 0
    assert "Contours" in labelled
    assert "Contours" not in bare
    assert_complete(bare)


def test_score_and_lost_landmarks_are_named(fixed_grid):
    data = registered(fixed_grid)
    metrics = data["metrics"] | {"predicted_overlap": 0.875, "lost_landmarks": {"2": "missing in the moving label"}}
    metrics["verdict"] = metrics["verdict"] | {"score": 0.875}
    text = assert_complete(QualityPaged()({**data, "metrics": metrics})["page"].decode()).text
    assert "score 0.875, 2 gradient steps" in text
    assert "2: missing in the moving label" in text
    assert "predicted overlap of the anatomy maps" in text
    bare = Reader(data["page"].decode()).text
    assert "score" not in bare
    assert "missing, vanished" not in bare
    assert "0.875" in Reader(batch_page([{"metrics": metrics, "thumbnail": data["thumbnail"]}])).text


def test_structures_have_the_names_of_their_list(fixed_grid):
    data = registered(fixed_grid, labels=True)
    data["metrics"]["lost_landmarks"] = {"3": "missing in the moving label"}
    names = {"fixed_structures": {"<gland>": 1, "apex": 3}, "moving_structures": {"<gland>": 2}}
    html = QualityPaged()({**data, **names})["page"].decode()
    text = assert_complete(html).text
    assert "DSC of <gland>" in text
    assert "HD95 of <gland> (mm)" in text
    assert "apex: missing in the moving label" in text
    assert "DSC of structure 1" not in text
    assert "<gland>" not in html


def test_structures_that_only_one_label_has_are_named(fixed_grid):
    """Neither the page nor the PDF showed that something was not measured."""
    data = registered(fixed_grid, labels=True)
    fixed = data["native_fixed_label"].clone()
    fixed[0, :2] = 7
    with pytest.warns(DataWarning, match="7 is missing in the moving label"):
        scored = PairMetricsd([0], None, "cpu", 2)({**data, "native_fixed_label": fixed})
    scored = {**scored, "metrics": scored["metrics"] | {"verdict": data["metrics"]["verdict"]}}
    shown = numbers(scored["metrics"], "mm")[1]
    assert ["structure 7 is missing in the moving label", "–"] in shown
    named = {**scored, "fixed_structures": {"lesion": 7}, "moving_structures": {"lesion": 7}, "patient": ("a",)}
    largest = {key: data["metrics"][key] for key in ("largest_displacement_mm",)}
    page = QualityPaged()({**named, "metrics": scored["metrics"] | largest})["page"].decode()
    assert "lesion is missing in the moving label" in page


def test_a_good_pair_has_no_reasons(fixed_grid):
    text = assert_complete(registered(fixed_grid)["page"].decode()).text
    assert "Within the limits of all 2 rules that apply." in text


def test_without_a_step_there_is_no_curve(fixed_grid):
    html = registered(fixed_grid, losses=(2.0,))["page"].decode()
    assert "No step was taken; the loss is 2." in assert_complete(html).text
    assert 'class="curve"' not in html


def test_a_field_that_folds_everywhere_still_has_a_page(fixed_grid):
    ddf = affine_ddf(np.diag([-2.0, 0, 0]), [0, 0, 0], fixed_grid.shape)
    html = registered(fixed_grid, ddf=ddf)["page"].decode()
    assert_complete(html)
    assert "100.00 %" in html


def test_a_name_is_no_markup(fixed_grid):
    html = registered(fixed_grid, name="<b>&")["page"].decode()
    assert "<b>&<" not in html
    assert "Quality of <b>&" in Reader(html).text


def test_a_picture_has_its_one_view_in_pixels():
    grid = Grid(np.eye(4), (24, 18, 1))
    ddf = torch.zeros(2, 24, 18)
    ddf[0] = 3.0
    html = registered(grid, ddf=ddf, picture=True)["page"].decode()
    text = assert_complete(html).text
    assert html.count("<svg") == 9 + 3 + 1
    assert "displacement (px)" in text
    assert "<th>largest displacement (px)</th><td>3.0</td>" in html
    assert "axial" not in html
    assert 'class="letter"' not in html.split("</style>")[1]


def test_a_volume_of_one_slice_has_directions():
    grid = Grid(np.diag([-0.5, -0.25, 2.0, 1.0]), (24, 18, 1))
    html = registered(grid)["page"].decode()
    assert html.count("<svg") == 9 + 3 + 1
    assert "axial" in html
    assert re.findall(r'class="letter"[^>]*>(.)<', html)[:4] == list("RLAP")


# --- views ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [(), (0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_views_are_radiological_whatever_the_order_of_the_voxels(mirrored, order):
    affine = oblique_affine((1.0, 2.0, 3.0), (8, -6, 5), (3.0, 1.0, 2.0), mirrored)[:, [*order, 3]]
    shape = (7, 8, 9)
    world = Grid(affine, shape).world()
    volumes = Volumes(affine, shape, picture=False)
    axial, coronal, sagittal = volumes.views(None)
    x, y, z = (volumes.turn(axis) for axis in world)
    # RAS: the left of the picture is the patient's right, where x is largest; the top is anterior or superior.
    for view, across, down in ((axial, -x, -y), (coronal, -x, -z), (sagittal, -y, -z)):
        assert (np.diff(view.cut(across), axis=1) > 0).all()
        assert (np.diff(view.cut(down), axis=0) > 0).all()
    assert axial.count == volumes.shape[2]
    assert axial.size == pytest.approx([volumes.spacing[0] * volumes.shape[0], volumes.spacing[1] * volumes.shape[1]])


def test_components_along_the_shown_axes_keep_their_length(moving_grid):
    volumes = Volumes(moving_grid.affine, moving_grid.shape, picture=False)
    vectors = np.random.default_rng(0).normal(size=(3, *moving_grid.shape))
    turned = volumes.along_axes(vectors)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=0), np.linalg.norm(vectors, axis=0), rtol=1e-5)
    # One step along the first axis that is shown.
    step = np.broadcast_to(volumes.affine[:3, :1, None, None], vectors.shape)
    expected = np.array([volumes.spacing[0], 0, 0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(volumes.along_axes(step), np.broadcast_to(expected, turned.shape), atol=1e-6)


def test_large_slices_are_averaged_and_their_marks_kept():
    volumes = Volumes(np.eye(4), (MOST_PIXELS * 2 - 1, 40, 1), picture=True)
    (view,) = volumes.views(None)
    assert view.step == 2
    image = np.zeros(volumes.shape)
    image[10, 20] = 1
    assert view.pixels(view.cut(image)).shape == (20, MOST_PIXELS)
    assert view.pixels(view.cut(image))[10, 5] == 0.25
    assert view.marks(view.cut(image > 0)).sum() == 1


def test_views_go_through_most_of_the_label():
    volumes = Volumes(np.diag([-1.0, -1.0, 1.0, 1.0]), (10, 11, 12), picture=False)
    label = np.zeros(volumes.shape, dtype=bool)
    label[2, 3:6, 4:9] = True
    label[1:4, 5, 7] = True
    assert {view.name: view.index for view in volumes.views(label)} == {"axial": 7, "coronal": 5, "sagittal": 2}


# --- what is explored -----------------------------------------------------------------------------------------------


def unpacked(found, name):
    """A volume of the page, as its script reads it."""
    levels = np.frombuffer(zlib.decompress(base64.b64decode(found["volumes"][name])), dtype=np.uint8)
    return levels.reshape(found["shape"], order="F")


def test_the_page_holds_whole_volumes_as_people_look_at_them():
    """On a grid of R, A, S the shown axes run to L, P, S: the first two are the other way round."""
    grid = Grid(np.diag([2.0, 1.0, 3.0, 1.0]), (9, 11, 7))
    ddf = torch.zeros(3, *grid.shape)
    ddf[0], ddf[1], ddf[2] = -1.0, 2.0, 0.5  # voxels: 2 mm to the left, 2 mm anterior, 1.5 mm superior
    data = registered(grid, ddf=ddf, labels=True)
    data["metrics"]["tre_mm"] = {"point 0": {"before": 1.0, "after": 2.0}}
    found = explored(data, 5.0, 1.0, {"1": "gland"})
    assert (found["shape"], found["spacing"], found["steps"]) == (grid.shape, [2.0, 1.0, 3.0], (1, 1, 1))
    image = data["native_fixed_image"][0].numpy()
    low, high = np.percentile(image, (0.5, 99.5))
    expected = np.rint(255 * np.clip((image - low) / (high - low), 0, 1))[::-1, ::-1]
    np.testing.assert_array_equal(unpacked(found, "fixed"), expected)
    for axis, mm in enumerate((2.0, -2.0, 1.5)):
        shown = (unpacked(found, f"u_{axis}") - 128.0) / 127 * found["reach"]
        np.testing.assert_allclose(shown, mm, atol=found["reach"] / 254)
    assert (unpacked(found, "log_jacobian") == 128).all()
    mask = data["native_fixed_label"][0].numpy()[::-1, ::-1] > 0
    np.testing.assert_array_equal(unpacked(found, "bits_fixed_0"), mask)
    (gland,) = found["landmarks"]
    assert gland["name"] == "gland"
    np.testing.assert_allclose(gland["at"], np.argwhere(mask).mean(0), atol=1e-4)


def test_folded_voxels_are_marked_in_the_volume(fixed_grid):
    data = registered(fixed_grid, ddf=folding(fixed_grid.shape, 2))
    assert (unpacked(explored(data, 5.0, 1.0, {}), "log_jacobian") == 0).sum() == data["metrics"]["folded_voxels"]


def test_maps_are_shown_where_the_image_is(fixed_grid):
    data = registered(fixed_grid)
    ball = torch.as_tensor(fixed_grid.ball(fixed_grid.centre, 5))[None].float()
    maps = {
        f"{side}_maps": MetaTensor(torch.cat([ball, 0 * ball]), affine=fixed_grid.affine)
        for side in ("fixed", "moving")
    }
    found = explored({**data, **maps}, 5.0, 1.0, {})
    volumes = Volumes(fixed_grid.affine, fixed_grid.shape, picture=False)
    assert found["maps"] == 2
    for name in ("fixed", "moving", "warped"):
        np.testing.assert_array_equal(unpacked(found, f"maps_{name}_0") > 127, volumes.turn(ball[0].numpy()) > 0)
        assert not unpacked(found, f"maps_{name}_1").any()


def test_large_images_are_explored_in_blocks_near_to_cubes(monkeypatch):
    monkeypatch.setattr("bundle.pages.explorer.MOST_VOXELS", 500)
    volumes = Volumes(np.diag([-1.0, -1.0, 4.0, 1.0]), (33, 24, 8), picture=False)
    blocks = Blocks(volumes)
    assert blocks.steps == (4, 4, 1)
    assert blocks.shape == (9, 6, 8)
    plane = np.broadcast_to(np.arange(33.0).reshape(-1, 1, 1), volumes.shape)
    # Means of 0..3, 4..7, ... and of the last voxel alone.
    np.testing.assert_allclose(blocks.averaged(plane)[:, 0, 0], [*np.arange(8) * 4 + 1.5, 32])
    np.testing.assert_allclose(blocks.middle(plane)[:, 0, 0], [*np.arange(8) * 4 + 2, 32])
    # The middle of the first block, voxels 0..3 by 0..3 by 0.
    np.testing.assert_allclose(blocks.affine @ [0, 0, 0, 1], volumes.affine @ [1.5, 1.5, 0, 1])


def test_blocks_at_the_end_of_an_axis_show_the_displacement_of_their_voxels(monkeypatch, fixed_grid):
    """Voxels that correspond by index, in a moving image that is mirrored and twice as large: 3 mm to the left."""
    monkeypatch.setattr("bundle.pages.explorer.MOST_VOXELS", 300)
    data = registered(fixed_grid)
    start, own = np.diag([-2.0, 2.0, 2.0, 1.0]), torch.tensor([-3.0, 0.0, 0.0]).reshape(3, 1, 1, 1)
    points = torch.as_tensor(fixed_grid.world())
    displacement = apply_affine(start, points + own) - points
    data |= {"initial_alignment": start, "displacement": MetaTensor(displacement.float(), affine=fixed_grid.affine)}
    found = explored(data, 5.0, 1.0, {})
    assert min(found["steps"]) > 1
    shown = np.stack([(unpacked(found, f"u_{axis}") - 128.0) / 127 * found["reach"] for axis in range(3)])
    np.testing.assert_allclose(np.linalg.norm(shown, axis=0), 3, atol=0.03)


def coordinates(path):
    return np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path), dtype=float)


def test_an_outline_lies_where_the_voxels_end():
    volumes = Volumes(np.diag([2.0, 3.0, 1.0, 1.0]), (10, 12, 1), picture=True)
    mask = np.zeros(volumes.shape, dtype=bool)
    mask[2:5, 3:9] = True
    points = coordinates(outline(volumes.views(None)[0], mask[..., 0].T, "red"))
    # Between pixel centres, as marching squares draw: columns 2 to 4 of 2 mm, rows 3 to 8 of 3 mm.
    np.testing.assert_allclose(points.min(0), [4, 9])
    np.testing.assert_allclose(points.max(0), [10, 27])


def test_grid_lines_are_drawn_where_points_come_from():
    axial = Volumes(np.diag([-1.0, -1.0, 1.0, 1.0]), (33, 33, 33), picture=False).views(None)[0]
    nothing = np.zeros((33, 33))
    straight, distance = deformed_grid(axial, nothing, nothing)
    moved, _ = deformed_grid(axial, nothing + 4, nothing - 2.5)
    assert distance == 2
    np.testing.assert_allclose(coordinates(moved) - coordinates(straight), [[4, -2.5]] * len(coordinates(straight)))


def test_displacement_is_shown_right_and_down(fixed_grid):
    ddf = torch.zeros(3, *fixed_grid.shape)
    # RAS on a grid of its own axes: 2 mm to the patient's left, 3 mm anterior, 4 mm superior.
    grid = Grid(np.diag([1.0, 1.0, 1.0, 1.0]), fixed_grid.shape)
    ddf[0], ddf[1], ddf[2] = -2.0, 3.0, 4.0
    axial, coronal, sagittal = shown_slices(registered(grid, ddf=ddf))
    for shown, right, down in ((axial, 2, -3), (coronal, 2, -4), (sagittal, -3, -4)):
        np.testing.assert_allclose(shown.right, right, atol=1e-5)
        np.testing.assert_allclose(shown.down, down, atol=1e-5)
        np.testing.assert_allclose(shown.length, np.sqrt(29), atol=1e-5)


def test_folded_voxels_are_those_of_the_metrics(fixed_grid):
    ddf = folding(fixed_grid.shape, 2)
    result = registered(fixed_grid, ddf=ddf)
    # The network's grid is the image's own, and whole layers of it fold, which the oblique axes keep in two views.
    layers = result["metrics"]["folded_voxels"] // np.prod(fixed_grid.shape[1:])
    folded = [int(shown.folded.sum()) for shown in shown_slices(result)]
    assert layers > 0
    assert folded[:2] == [layers * fixed_grid.shape[1], layers * fixed_grid.shape[2]]


# --- a run ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def outputs(fixed_grid):
    good = registered(fixed_grid, labels=True, name="good one")
    bad = registered(fixed_grid, ddf=folding(fixed_grid.shape, 2), labels=True, name="bad")
    return [good, {"pair_id": "broken", "error": "a < b.nii.gz: cannot be read"}, bad]


def test_a_run_without_pages_removes_that_of_an_earlier_one(outputs, tmp_path):
    for shown in (True, False):
        engine = Engine(lambda engine, output: [output])
        QualityIndex(tmp_path, shown).attach(engine)
        engine.run(outputs)
        assert (tmp_path / "quality.html").exists() == shown


def test_no_text_of_the_pdf_is_hidden_or_taken_for_a_formula(fixed_grid, monkeypatch):
    names = [f"lobe {number} of the $\\foo$ and all that is called after it" for number in range(60)]
    data = PairPictured()(registered(fixed_grid, labels=True))
    metrics = {**data["metrics"], "dsc": {name: {"before": 0.5, "after": 0.75} for name in names}}
    metrics["verdict"] = {**metrics["verdict"], "reasons": names}
    boxes = {}

    def measured(figure, *place, **style):
        figure.draw_without_rendering()
        texts = [text for axis in figure.axes for text in axis.texts if text.get_text()]
        boxes.update({text: text.get_window_extent() for text in texts})
        return savefig(figure, *place, **style)

    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", measured)
    QualityPdfd()({**data, "metrics": metrics})
    shown = {text.get_text() for text in boxes}
    assert {names[0], "... 51 more", "DSC of lobe 0 of the $\\foo$ and all that is", "0.750"} <= shown
    figure = next(iter(boxes)).figure
    picture = figure.axes[1].get_window_extent()
    for text, box in boxes.items():
        assert figure.bbox.y0 <= box.y0, text
        assert box.x1 <= figure.bbox.x1, text
        inside = box.padded(-2)  # boxes of lines touch
        assert not inside.overlaps(picture), text
        assert not [other for other, its in boxes.items() if other is not text and inside.overlaps(its)], text


def test_page_of_a_run_lists_every_pair(outputs, tmp_path):
    engine = Engine(lambda engine, output: [output])
    QualityIndex(tmp_path).attach(engine)
    for _ in range(2):
        engine.run(outputs)
    for output in outputs[::2]:
        SavePaird(tmp_path)(output)
    html = (tmp_path / "quality.html").read_text(encoding="utf-8")
    reader = Reader(html)
    assert not re.search(r"https?:|url\(|@import|<script[^>]*src|<link", html)
    links = [address for address in reader.addresses if not address.startswith("data:")]
    assert links == ["good%20one/quality.html", "bad/quality.html"]
    assert (tmp_path / "bad/quality.html").read_bytes() == outputs[2]["page"]
    assert "3 pairs: 1 good, 0 check, 1 failed, 1 could not be registered error" in reader.text
    assert "Could not be registered: a < b.nii.gz: cannot be read" in reader.text
    for reason in outputs[2]["metrics"]["verdict"]["reasons"]:
        assert reason in reader.text
    assert html.count("<svg") == 2
    assert "above 0.5 %" in reader.text


def test_page_of_a_run_has_a_column_of_scores_if_a_pair_has_one(outputs):
    assert "score" not in Reader(batch_page(outputs)).text
    outputs[0]["metrics"]["verdict"] |= {"score": 0.875}
    html = batch_page(outputs)
    assert ">score<" in html and ">0.875</td>" in html
    assert len(set(re.findall(r'data-title="score">(.*?)<', html))) == 2  # the others have none


def test_page_of_a_run_in_which_every_pair_failed():
    text = Reader(batch_page([{"pair_id": "a", "error": "x"}])).text
    assert "1 pair: 0 good, 0 check, 0 failed, 1 could not be registered" in text


def test_thumbnail_is_small(fixed_grid):
    assert len(registered(fixed_grid, labels=True)["thumbnail"]) < 20_000


def test_the_outlined_structure_of_the_moving_image_is_that_of_the_fixed_one():
    """The first channels were drawn, whatever structures these were."""
    grid = Grid(np.eye(4), (24, 20, 18))
    gland, apex = (torch.as_tensor(grid.ball(grid.centre, radius)).float() for radius in (6, 2))
    data = registered(grid)
    for side, channels in (("fixed", (gland, apex)), ("moving", (apex, gland))):
        data[f"native_{side}_label"] = MetaTensor(torch.stack(channels), affine=grid.affine)
    names = {"fixed_structures": {"gland": 0, "apex": 1}, "moving_structures": {"gland": 1, "apex": 0}}
    for shown in shown_slices(NativeOutputsd()({**data, **names, "patient": ("A", "B")})):
        for name in ("fixed", "moving", "warped"):
            (mask,) = shown.labels[name]
            np.testing.assert_array_equal(mask, shown.labels["fixed"][0])
