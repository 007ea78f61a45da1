"""The MONAI Label app on the series of a DICOMweb server, asked as OHIF asks."""

import json

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_toys import oblique_affine, write_series
from dicomweb import DicomWeb
from pydicom.dataset import FileDataset
from test_label_app import read
from workflow_fixtures import volume

from bundle import register
from bundle.formats import load_image

pytest.importorskip("monailabel", reason="MONAI Label is not installed here: run it in the environment of make label")
import requests  # noqa: E402
from test_label_server import OHIF, SMALL, start_server, write_weights  # noqa: E402

AFFINES = {
    "fixed": oblique_affine((5.0, 5.5, 6.0)),
    "moving": oblique_affine((5.5, 5.0, 6.0), (-30.0, 20.0, 50.0), (5.0, 10.0, -12.0)),
}
OPTIONS = {"label_info": [{"name": "gland", "model_name": "registration"}]}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileDataset, "save_as", save_as)
        for number, side in enumerate(("fixed", "moving")):
            write_series(folder / side, volume(number)[0].astype(np.uint16), AFFINES[side])
    web = DicomWeb([folder / "fixed", folder / "moving"])
    yield folder, web
    web.close()


def save_as(self, path, enforce_file_format, save=FileDataset.save_as):
    """As in pydicom 3, with the pydicom 2 that MONAI Label needs."""
    self.is_little_endian, self.is_implicit_VR = True, False
    save(self, path, write_like_original=not enforce_file_format)


@pytest.fixture(scope="module")
def server(archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "small.yaml").write_text(json.dumps(SMALL))
    write_weights(folder / "start.pt", folder / "small.yaml")
    yield from start_server(folder, archive[1].url, MONAI_LABEL_DICOMWEB_SEARCH_FILTER='{"Modality": "MR"}')


def test_series_are_registered_and_a_label_comes_back_as_dicom_seg(archive, server, tmp_path):
    folder, web = archive
    fixed, moving = web.series
    assert server.info()["models"]["carry_label"]["config"]["moving"] == ["", *sorted(web.series)]

    response = server.infer("registration", fixed, "image", {"moving": moving, **OHIF})
    assert response.status_code == 200, response.text
    (tmp_path / "warped.nrrd").write_bytes(response.content)
    small = server.home.parent / "small.yaml"
    files = [next((server.home / "dicom").glob(f"*/{series}.nii.gz")) for series in (fixed, moving)]
    expected = register(*files, config_file=["inference.yaml", small], **server.settings)
    voxels, affine = read(tmp_path / "warped.nrrd")
    np.testing.assert_array_equal(voxels, expected.warped)
    # Slices are put in order by whoever reads them; the world is that of the series.
    for file, side in zip(files, ("fixed", "moving"), strict=True):
        fetched, series = load_image(file), load_image(folder / side)
        np.testing.assert_array_equal(fetched.numpy(), series.numpy())
        np.testing.assert_allclose(fetched.affine, series.affine, atol=1e-4)
    np.testing.assert_allclose(affine, load_image(files[0]).affine, atol=1e-4)

    label = (volume(1)[0] > 60).astype(np.uint8)
    nib.save(nib.Nifti1Image(label, AFFINES["moving"]), tmp_path / "label.nii.gz")
    with (tmp_path / "label.nii.gz").open("rb") as file:
        url = f"{server.url}/datastore/label?image={moving}&tag=original"
        requests.put(url, files={"label": ("label.nii.gz", file)}, timeout=600).raise_for_status()
    response = server.infer("carry_label", fixed, "dicom_seg", {"moving": moving, "label": "original", **OPTIONS})
    assert response.status_code == 200, response.text
    (tmp_path / "label.dcm").write_bytes(response.content)
    segmentation = pydicom.dcmread(tmp_path / "label.dcm")
    assert segmentation.Modality == "SEG"
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == fixed
    response = server.infer("carry_label", fixed, "image", {"moving": moving, "label": "original", **OHIF})
    (tmp_path / "carried.nrrd").write_bytes(response.content)
    assert segmentation.pixel_array.sum() == (read(tmp_path / "carried.nrrd")[0] == 1).sum() > 0


def test_the_strategy_proposes_series(archive, server):
    sample = requests.post(f"{server.url}/activelearning/largest_loss", json={}, timeout=600).json()
    assert {sample["id"], sample["moving"]} == set(archive[1].series)


@pytest.mark.parametrize("image", ["..", "1..2", "1.2.3", "x"])
def test_what_is_no_series_is_refused(archive, server, image):
    response = server.infer("registration", image, "json", {"moving": next(iter(archive[1].series))})
    assert response.status_code in (400, 404, 422)
    assert "\n" not in response.json()["detail"]
