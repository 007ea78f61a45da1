"""Registration from Python: the inference workflow on one pair, its results in memory."""

from __future__ import annotations

import base64
import threading
import warnings
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from nibabel.spatialimages import SpatialImage

from bundle.data import stem
from bundle.geometry import Transform
from bundle.pages import PairPictured, QualityPaged, QualityPdfd
from bundle.results import DicomOutputsd, SavePaird, TransformsBothWaysd, save_objects
from bundle.system import CONFIGS, exists, processes
from bundle.system.console import HARMLESS, unknown_option

IN_MEMORY = {"output_dir": None, "pictures": False, "quality_pages": False, "transforms": False, "dicom": False}
"""What the workflow writes is made when the result is saved."""
BUILDING = threading.Lock()
"""Held while a configuration becomes objects."""
Image: TypeAlias = str | Path | MetaTensor | SpatialImage | tuple[np.ndarray, np.ndarray]
"""A file, a folder of DICOM, a nibabel image, or an array ``(X, Y, Z)`` and its affine ``(4, 4)`` to RAS mm."""


class Registration:
    """A registered pair.

    Attributes:
        data: everything that the workflow found, by the names of its transforms.
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

    @property
    def affine(self) -> np.ndarray:
        """``(4, 4)`` voxel-to-world of the fixed image's grid, mm, RAS."""
        return np.asarray(self.data["displacement"].affine, dtype=float)

    @property
    def displacement(self) -> np.ndarray:
        """``(3, X, Y, Z)`` mm, RAS: the fixed point ``p`` shows the moving point ``p + d(p)``."""
        return self.data["displacement"].numpy()

    @property
    def metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` holds: losses, similarity, folding, accuracy where there are labels or landmarks."""
        return self.data["metrics"]

    @property
    def transform(self) -> Transform:
        """From fixed points to moving ones, mm, RAS."""
        return self._both_ways["transform"]

    @property
    def inverse_transform(self) -> Transform:
        """From moving points to fixed ones, mm, RAS."""
        return self._both_ways["inverse_transform"]

    def to_moving(self, points: np.ndarray) -> np.ndarray:
        """Moving points that fixed points show; both ``(n, 3)``, mm, RAS."""
        return self.transform(torch.as_tensor(np.asarray(points, dtype=float).T)).T.numpy()

    def to_fixed(self, points: np.ndarray) -> np.ndarray:
        """Fixed points where moving points are seen; both ``(n, 3)``, mm, RAS."""
        return self.transform.inverse_at(torch.as_tensor(np.asarray(points, dtype=float).T)).T.numpy()

    def save(self, folder: str | Path) -> Path:
        """Write what the workflow writes for a pair, and the transforms both ways; the folder is complete or not there.

        Args:
            folder: where to; an older result is replaced.

        Returns:
            The folder.

        Raises:
            OSError: when it cannot be written.
        """
        folder = Path(folder).absolute()
        SavePaird(folder.parent)({**QualityPaged()(self._pictured), **self._both_ways, "pair_id": folder.name})
        return folder

    def save_dicom(self, folder: str | Path) -> Path:
        """Write the DICOM objects that the workflow writes with ``dicom``; the folder is complete or not there.

        Args:
            folder: new, or empty: ``registration.dcm``, ``warped/``, ``segmentation.dcm``, ``report.dcm``.

        Returns:
            The folder.

        Raises:
            ValueError: when the images are not DICOM series of one patient.
            OSError: when it cannot be written, or has something in it.
        """
        folder = Path(folder).absolute()
        objects = DicomOutputsd()(QualityPdfd()(self._pictured))["dicom"]
        if not objects:
            raise ValueError("nothing to write as DICOM: the fixed image is not a DICOM series; save() writes NIfTI")
        save_objects(objects, folder)
        return folder

    @cached_property
    def _pictured(self) -> dict[Hashable, Any]:
        return PairPictured()(self.data)

    @cached_property
    def _both_ways(self) -> dict[Hashable, Any]:
        return TransformsBothWaysd()(self.data)

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
    fixed_landmarks: str | Path | None = None,
    moving_landmarks: str | Path | None = None,
    **settings: Any,
) -> Registration:
    """Register one pair as ``configs/inference.yaml`` does; nothing is written.

    Threads may call it at the same time: they share the weights, and take turns on a device (``at_once``).

    Args:
        fixed: image whose grid the results have.
        moving: image that is warped.
        config_file: configuration and overlays, files or names of files in ``configs/``; slices take
            ``"inference_2d.yaml"``.
        fixed_label: integer map, or ``(X, Y, Z, channels)``; labels are scored, the steps never see them.
        moving_label: the same; warped as well.
        fixed_mask: where the fixed image counts.
        moving_mask: where the moving image counts.
        fixed_landmarks: file of points.
        moving_landmarks: file of points that correspond row by row.
        settings: keys of the configuration with other values, such as ``steps=10`` or ``weights="model.pt"``.

    Returns:
        Warped image, displacement, transforms, metrics.

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: for a setting that the configuration does not have, or images that cannot be registered.
    """
    given = {
        "fixed_image": fixed,
        "moving_image": moving,
        "fixed_label": fixed_label,
        "moving_label": moving_label,
        "fixed_mask": fixed_mask,
        "moving_mask": moving_mask,
        "fixed_landmarks": fixed_landmarks,
        "moving_landmarks": moving_landmarks,
    }
    pair = {name: _loadable(value, name) for name, value in given.items() if value is not None}
    pair["pair_id"] = "_to_".join(
        stem(value) if isinstance(value, str | Path) else "array" for value in (moving, fixed)
    )
    parser = read_configuration(config_file, settings)
    for key, value in {**IN_MEMORY, "dataset::data": [pair], "dataloader::generator": torch.Generator()}.items():
        parser[key] = value
    # The filters of warnings belong to all threads: to put them back would put back those of another thread.
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)
    processes.only_deterministic(parser["deterministic"])
    # So does torch's random state, from which networks without a file of weights begin.
    with BUILDING, torch.random.fork_rng():
        torch.manual_seed(parser["seed"])
        evaluator = parser.get_parsed_content("evaluator")
    evaluator.run()
    (found,) = evaluator.state.output
    if "error" in found:
        raise ValueError(found["error"])
    return Registration({**evaluator.state.batch[0], **found})


def read_configuration(config_file: str | Path | Sequence[str | Path], settings: Mapping[str, Any]) -> ConfigParser:
    """The configuration with some values replaced."""
    names = [config_file] if isinstance(config_file, str | Path) else config_file
    files = [name if Path(name).is_file() else CONFIGS / name for name in names]
    missing = [str(name) for name, file in zip(names, files, strict=True) if not Path(file).is_file()]
    if missing:
        raise FileNotFoundError(f"configuration not found: {', '.join(missing)}; give a file, or a name in {CONFIGS}")
    content = ConfigParser.load_config_files(files)
    unknown = [name for name in settings if name not in content]
    if unknown:
        raise ValueError(unknown_option(unknown, content))
    return ConfigParser({**content, **settings})


def _loadable(value: Any, name: str) -> Any:
    """A path as it is if the file is there, an array or image as what ``LoadPaird`` would make of its file."""
    if isinstance(value, str | Path):
        if not exists(value):
            raise FileNotFoundError(f"{name} not found: {value}")
        return str(value)
    if isinstance(value, SpatialImage):
        value = np.asanyarray(value.dataobj), value.affine
    if isinstance(value, MetaTensor):
        return value
    try:
        voxels, affine = (np.asarray(part) for part in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is a {type(value).__name__}; expected a path, or an array and its affine") from error
    if affine.shape != (4, 4) or voxels.ndim not in (3, 4):
        raise ValueError(
            f"{name}: an array of shape {voxels.shape} and an affine of shape {affine.shape}; expected (X, Y, Z), of "
            "labels also (X, Y, Z, channels), and (4, 4)"
        )
    channels = voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0)
    tensor = torch.as_tensor(np.ascontiguousarray(channels, dtype=np.float32))
    return MetaTensor(
        tensor, affine=torch.as_tensor(affine, dtype=torch.float64), meta={"stored_type": str(voxels.dtype)}
    )
