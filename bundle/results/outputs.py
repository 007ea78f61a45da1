"""From the network's DDF to results on the fixed image's grid and to files."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import ImageMetaKey, convert_to_tensor

from bundle.dicom.common import write_objects
from bundle.formats import PICTURE_SUFFIXES, displacement_image, save_image, smallest_type, write_transform
from bundle.formats.loading import file_of
from bundle.geometry import ddf_to_displacement, lift_ddf, warp_native
from bundle.results.resume import write_record
from bundle.system import whole_folder
from bundle.system.files import RECORD, is_occupied

ORIGIN = (ImageMetaKey.FILENAME_OR_OBJ, "stored_type")
"""What a warped image keeps of the moving image's file: its name, and the type of its voxels."""
METRICS = "metrics.json"
"""File that every folder of a pair has."""
PAGES = {"picture": "overview.png", "page": "quality.html"}
"""What people look at, by its key in a pair."""


class NativeOutputsd(Transform):
    """Displacement, warped image and warped label on the fixed image's native grid.

    Native voxels of the moving image are interpolated once, with the initial alignment and the DDF composed. Adds
    ``displacement`` ``(3, *fixed_shape)`` in mm (RAS), ``warped_image`` and, for a labelled moving image,
    ``warped_label`` (nearest neighbour) and ``warped_label_weights`` (linear, for a label with a channel per structure:
    centroids of small landmarks need them). ``aligned_*`` are the same with the initial alignment alone.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Compute the outputs of one pair.

        Args:
            data: ``pred["ddf"]`` on the grid of ``fixed_image``, ``native_fixed_image``, ``native_moving_image``
                [, ``native_moving_label``] as read from file, and ``initial_alignment``.
        """
        output = dict(data)
        ddf = lift_ddf(torch.as_tensor(data["pred"]["ddf"]).cpu())
        fixed = data["native_fixed_image"]
        fixed_affine, network_affine = np.asarray(fixed.affine), np.asarray(data["fixed_image"].affine)
        alignment = np.asarray(data["initial_alignment"])

        def displacement(field: torch.Tensor) -> torch.Tensor:
            return ddf_to_displacement(field, network_affine, fixed_affine, fixed.shape[1:], alignment)

        def warped(key: str, field: torch.Tensor, mode: str) -> MetaTensor:
            moving = data[key]
            image = warp_native(moving.as_tensor(), np.asarray(moving.affine), field, fixed_affine, mode)
            file = {name: moving.meta[name] for name in ORIGIN if name in moving.meta}
            return MetaTensor(image, affine=fixed.affine, meta=file)

        output["displacement"] = MetaTensor(displacement(ddf), affine=fixed.affine)
        fields = {"warped": output["displacement"].as_tensor(), "aligned": displacement(torch.zeros_like(ddf))}
        for name, field in fields.items():
            output[f"{name}_image"] = warped("native_moving_image", field, "bilinear")
            if "native_moving_label" in data:
                output[f"{name}_label"] = warped("native_moving_label", field, "nearest")
                if len(data["native_moving_label"]) > 1:
                    output[f"{name}_label_weights"] = warped("native_moving_label", field, "bilinear")
        return output


class SavePaird(Transform):
    """Write the results of one pair to ``<output_dir>/<pair_id>/``; the folder appears complete or not at all.

    A warped picture has the format of the moving one, a warped volume is NIfTI; both keep the moving image's type.

    Args:
        output_dir: where the folders of all pairs go; created when missing.
    """

    does_not_count = ("output_dir",)  # where a result lies says nothing of what it is

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.output_dir = Path(output_dir).absolute()  # nibabel takes a leading ~ for the home folder

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write one pair (``NativeOutputsd``, ``bundle.evaluation.PairMetricsd``); an older result is replaced."""
        final = self.output_dir / data["pair_id"]
        try:
            _check_replaceable(final)
            with whole_folder(final) as folder:
                self._write(data, folder)
        except OSError as error:
            raise OSError(f"cannot write the results of pair {data['pair_id']} to {final}: {error}") from error
        return dict(data)

    @staticmethod
    def _write(data: Mapping[Hashable, Any], folder: Path) -> None:
        affine = np.asarray(data["native_fixed_image"].affine)
        nib.save(displacement_image(data["displacement"].as_tensor(), affine), folder / "displacement.nii.gz")
        for kind in ("image", "label"):
            if f"warped_{kind}" not in data:
                continue
            warped = convert_to_tensor(data[f"warped_{kind}"], track_meta=True)
            channels = warped.cpu().numpy()
            suffix = Path(file_of(warped)).suffix.lower()
            file = folder / f"warped_{kind}{suffix if suffix in PICTURE_SUFFIXES else '.nii.gz'}"
            unknown = smallest_type(channels.min(), channels.max()) if kind == "label" else np.float32
            save_image(channels, affine, np.dtype(warped.meta.get("stored_type", unknown)), file)
        if "inverse_displacement" in data:
            back = data["inverse_displacement"]
            nib.save(
                displacement_image(back.as_tensor(), np.asarray(back.affine)), folder / "inverse_displacement.nii.gz"
            )
        for name in ("transform", "inverse_transform"):
            if name in data:
                write_transform(data[name], folder / f"{name}{'.tfm' if data[name].is_affine else '.h5'}")
        (folder / METRICS).write_text(json.dumps(data["metrics"], indent=2) + "\n")
        for key, name in PAGES.items():
            if key in data:
                (folder / name).write_bytes(data[key])
        write_objects(data.get("dicom", {}), folder / "dicom")
        if "images_at" in data:
            write_record(folder, data)


def _check_replaceable(folder: Path) -> None:
    """Refuse a folder of anything but a pair's results, which would be deleted with all that is in it.

    Raises:
        FileExistsError: when there is a file, or a folder with other content.
    """
    if is_occupied(folder) and not any((folder / name).is_file() for name in (METRICS, RECORD)):
        raise FileExistsError("it is there already and holds no results of a pair; give another name")


def check_beside(folder: Path, images: Iterable[str], called: str = "") -> None:
    """Refuse results within the folder of an image: what DICOM is among them would be slices of it from then on.

    Args:
        folder: folder of results.
        images: files and folders of images; empty for images in memory.
        called: what messages put before the folder.

    Raises:
        ValueError: naming the folder of the image.
    """
    place = folder.resolve()
    places = {Path(image).resolve() for image in images if image}
    inside = [image for image in places.intersection((place, *place.parents)) if image.is_dir()]
    if inside:
        raise ValueError(f"{called}{folder} lies in {min(inside)}, the folder of an image; give another")
