"""Registration from Python: the inference workflow on one pair, its results in memory."""

from __future__ import annotations

import base64
import threading
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

import monai.bundle
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from nibabel.spatialimages import SpatialImage

from bundle.data import SIDES, stem, tell_one_sided
from bundle.evaluation.metrics import without_nan
from bundle.formats import in_memory
from bundle.geometry import Transform, move_points, warp_native
from bundle.pages import PairPictured, QualityPaged, QualityPdfd
from bundle.results import DicomOutputsd, NoObjects, SavePaird, TransformsBothWaysd, save_objects, series_of
from bundle.system import exists, processes, spelt_otherwise, unwrapped
from bundle.system.configurations import check_landmarks, find_configurations, on_inference, unknown_option
from bundle.system.console import hide_what_is_harmless
from bundle.system.kinds import check_settings, load_checked, tell_unused
from bundle.system.limits import is_same_file
from bundle.system.overrides import check_known, literal_paths
from bundle.system.text import literal

IN_MEMORY = {"output_dir": None, "pictures": False, "quality_pages": False, "transforms": False, "dicom": False}
"""Settings that turn off all output files: they are made when the result is saved."""
OF_LISTS = ("dataset_dir", "datalist", "section", "pairing", "pair_limits")  # which images are registered
BUILDING = threading.Lock()  # held while objects are made from a configuration
Image: TypeAlias = str | PathLike[str] | MetaTensor | SpatialImage | tuple[np.ndarray, np.ndarray]
"""A file, a folder of DICOM, an image of MONAI or nibabel, or an array ``(X, Y, Z)`` and its affine to RAS mm."""


class Registration:
    """A registered pair.

    Attributes:
        data: everything that the workflow computed, by the keys of its transforms.
    """

    def __init__(self, data: Mapping[Hashable, Any]) -> None:
        self.data = dict(data)

    @property
    def warped(self) -> np.ndarray:
        """The moving image on the fixed image's grid, ``(X, Y, Z)``."""
        return self.data["warped_image"][0].numpy()

    @property
    def warped_label(self) -> np.ndarray | None:
        """The moving label on the fixed image's grid, ``(channels, X, Y, Z)``; None without one."""
        return self.data["warped_label"].numpy() if "warped_label" in self.data else None

    @cached_property
    def proposed_label(self) -> np.ndarray | None:
        """What the map networks take for the structures of the fixed image, a proposal for a person to correct.

        A structure is where its map is above one half, ``(maps, X, Y, Z)`` of 0 and 1. None for weights without maps.
        """
        if "fixed_maps" not in self.data:
            return None
        maps, still = self.data["fixed_maps"], torch.zeros_like(self.data["displacement"].as_tensor())
        native = warp_native(maps.as_tensor(), np.asarray(maps.affine), still, self.affine)
        return (native > 0.5).to(torch.uint8).numpy()

    @property
    def affine(self) -> np.ndarray:
        """``(4, 4)`` voxel-to-world of the fixed image's grid, mm, RAS."""
        return np.asarray(self.data["displacement"].affine, dtype=float)

    @property
    def displacement(self) -> np.ndarray:
        """``(3, X, Y, Z)`` mm, RAS: the fixed point ``p`` corresponds to the moving point ``p + d(p)``."""
        return self.data["displacement"].numpy()

    @property
    def metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` holds: losses, similarity, folding, and accuracy if there are labels or landmarks."""
        return self.data["metrics"]

    @property
    def transform(self) -> Transform:
        """From fixed points to moving points, mm, RAS."""
        return self._both_ways["transform"]

    @property
    def inverse_transform(self) -> Transform:
        """From moving points to fixed points, mm, RAS."""
        return self._both_ways["inverse_transform"]

    def to_moving(self, points: np.typing.ArrayLike) -> np.ndarray:
        """Map fixed points to the moving image; both ``(n, 3)``, or ``(3,)`` for one point, mm, RAS."""
        return move_points(points, self.transform)

    def to_fixed(self, points: np.typing.ArrayLike) -> np.ndarray:
        """Map moving points to the fixed image; both ``(n, 3)``, or ``(3,)`` for one point, mm, RAS."""
        return move_points(points, self.transform.inverse_at)

    def save(self, folder: str | Path) -> Path:
        """Write what the workflow writes for a pair, and the transforms both ways. The folder is complete or not there.

        Args:
            folder: output folder; an older result is replaced, a folder of anything else refused.

        Returns:
            The folder.

        Raises:
            OSError: when it cannot be written.
        """
        folder = Path(folder).absolute()
        SavePaird(folder.parent)({**QualityPaged()({**self._pictured, **self._both_ways}), "pair_id": folder.name})
        return folder

    def save_dicom(self, folder: str | Path) -> Path:
        """Write the DICOM objects that the workflow writes with ``dicom``. The folder is complete or not there.

        Args:
            folder: new or empty folder for ``registration.dcm``, ``warped/``, ``segmentation.dcm``, ``report.dcm``.

        Returns:
            The folder.

        Raises:
            ValueError: when the fixed image is no DICOM series, the moving one of another patient, or it lies in one.
            OSError: when it cannot be written, or is not empty.
        """
        folder = Path(folder).absolute()
        objects = DicomOutputsd()(QualityPdfd()(self._pictured))["dicom"]
        if not objects:
            series = series_of(self.data["native_fixed_image"]) is not None
            reason = "the warnings say why" if series else "the fixed image is not a DICOM series"
            raise NoObjects(f"nothing to write as DICOM: {reason}; save() writes NIfTI")
        save_objects(objects, folder, [self.data[f"native_{side}_image"] for side in SIDES])
        return folder

    @cached_property
    def _pictured(self) -> dict[Hashable, Any]:
        return PairPictured()(self.data)

    @cached_property
    def _both_ways(self) -> dict[Hashable, Any]:
        found = TransformsBothWaysd()(self.data)
        return found | {"metrics": self.metrics | without_nan({"inverse_residual_mm": found["inverse_residual_mm"]})}

    def _repr_html_(self) -> str:
        """The picture of the pair, in a notebook."""
        picture = base64.b64encode(self._pictured["picture"]).decode()
        return f'<img alt="fixed, moving, warped" src="data:image/png;base64,{picture}">'


def register(
    fixed: Image,
    moving: Image,
    *,
    config_file: str | Path | Sequence[str | Path] = "inference.yaml",
    fixed_label: Image | None = None,
    moving_label: Image | None = None,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    fixed_landmarks: str | PathLike[str] | None = None,
    moving_landmarks: str | PathLike[str] | None = None,
    **settings: Any,
) -> Registration:
    """Register one pair as ``configs/inference.yaml`` does; nothing is written.

    Several threads may call it at the same time: they share the weights, and take turns on a device (``at_once``).

    Args:
        fixed: image whose grid the results have.
        moving: image that is warped.
        config_file: presets and overlays for ``inference.yaml``, files or names of files in ``configs/``, such as
            ``"cpu.yaml"``; slices take ``"inference_2d.yaml"``.
        fixed_label: integer map, or ``(X, Y, Z, channels)``; in the steps with ``test_labels.yaml`` alone.
        moving_label: the same; warped as well.
        fixed_mask: where the fixed image counts.
        moving_mask: where the moving image counts.
        fixed_landmarks: file of points.
        moving_landmarks: file of as many points, which correspond by name, else by row.
        settings: keys of the configuration with other values, such as ``steps=10``; none of data sets or of output.

    Returns:
        Warped image, displacement, transforms, metrics.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for an unknown setting, a value of another kind than usual, or images that cannot be registered.
    """
    parts = {"fixed_label": fixed_label, "moving_label": moving_label, "fixed_mask": fixed_mask}
    parts |= {"moving_mask": moving_mask, "fixed_landmarks": fixed_landmarks, "moving_landmarks": moving_landmarks}
    if unused := [name for name in (*IN_MEMORY, *OF_LISTS) if settings.get(name)]:
        raise ValueError(f"register() takes two images: leave out {', '.join(unused)}; save() and save_dicom() write")
    check_landmarks(given := {key: value for key, value in parts.items() if value is not None})
    tell_one_sided({"pair": [given]})
    pair = {key: _loadable(part, key) for key, part in {"fixed_image": fixed, "moving_image": moving, **given}.items()}
    files = [fspath(value) if isinstance(value, str | PathLike) else "" for value in (moving, fixed)]
    pair["pair_id"] = literal("_to_".join(stem(file) or "array" for file in files))
    pair |= {"patient": ("one",)} if is_same_file(*files) else {}  # as in lists
    parser = read_configuration(on_inference(config_file), settings)
    parser.update({**IN_MEMORY, "dataset::data": [pair], "dataloader::generator": torch.Generator()})
    hide_what_is_harmless()
    processes.only_deterministic(parser["deterministic"])
    # So does torch's random state, from which networks without a file of weights are initialised.
    with BUILDING, torch.random.fork_rng(), unwrapped():
        torch.manual_seed(parser["seed"])
        evaluator = parser.get_parsed_content("evaluator")
    evaluator.run()
    (found,) = evaluator.state.output
    if "error" in found:
        raise ValueError(found["error"])
    return Registration({**evaluator.state.batch[0], **found})


def create_workflow(config_file: str | Path | Sequence[str | Path], **settings: Any) -> Any:
    """Create a workflow as ``monai.bundle.create_workflow`` does, and find the configurations from any folder.

    Args:
        config_file: files, or names of files in this package, such as ``"configs/inference.yaml"``.
        settings: keys of the configuration with other values, and options of MONAI's function.

    Returns:
        The workflow, initialized.

    Raises:
        FileNotFoundError: for a missing configuration.
        ValueError: for an unknown setting, a value of another kind, and a device that is not there.
    """
    check_known(settings, content := load_checked(config_file))
    check_settings(settings, content)
    hide_what_is_harmless()
    files = [str(path) for path in find_configurations(config_file)]
    given = {name: "$None" if value is None and name in content else value for name, value in settings.items()}
    return monai.bundle.create_workflow(config_file=files, **literal_paths(given))  # MONAI drops an option that is None


def read_configuration(config_file: str | Path | Sequence[str | Path], settings: Mapping[str, Any]) -> ConfigParser:
    """The configuration with some values replaced; errors are those of :func:`create_workflow`."""
    content = load_checked(config_file)
    if unknown := [name for name in settings if name not in content]:
        raise ValueError(unknown_option(unknown, content))
    check_settings(settings, content)
    tell_unused(settings, content)
    return ConfigParser({**content, **literal_paths(settings)})


def _loadable(value: Any, name: str) -> Any:
    """A path if its file exists; an array or image in the form that ``LoadPaird`` would give."""
    if not isinstance(value, str | PathLike):
        return in_memory(value, name)
    if not exists(value):
        raise FileNotFoundError(f"{name} not found: {fspath(value)!r}{spelt_otherwise(value)}")
    return literal(fspath(value))
