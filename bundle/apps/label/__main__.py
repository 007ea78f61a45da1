"""``python -m bundle.apps.label``: start the server, by default for this machine only."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import bundle
from bundle.apps.label.settings import ServerSettings
from bundle.apps.label.studies import FINAL, images_in, linked_studies, simulated_studies
from bundle.system import DataWarning, commands, console

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAIN = "from bundle.apps.label.app import RegistrationApp\n"
"""The ``main.py`` that MONAI Label looks for in the folder of an app."""


def serve(
    studies: str | None = None,
    *,
    home: str = "runs/label",
    host: str = "127.0.0.1",
    port: int = 8000,
    config: Sequence[str] = (),
    train_config: Sequence[str] = (),
    weights: str = "",
    device: str = "",
    labels: Sequence[str] = (),
) -> None:
    """Start MONAI Label with the registration app.

    Args:
        studies: folder of images, or address of a DICOMweb server; without it, patients are simulated.
        home: folder for weights, trainings, logs and uploads.
        host: address to listen on; 127.0.0.1 answers only this machine.
        port: port to listen on.
        config: configuration of registration and its overlays; without it, inference.yaml.
        train_config: configuration of training and its overlays; without it, train.yaml with the overlays of config.
        weights: file of weights to start from; without it, the bundle's own.
        device: cuda:0 or cpu; without it, the GPU if there is one.
        labels: names of the values 1, 2, ... of labels.

    Raises:
        FileNotFoundError: when there is no such folder of images, configuration or weights.
        ImportError: when MONAI Label is not installed.
        ValueError: for an unknown option.
    """
    if find_spec("monailabel") is None:
        raise ImportError("MONAI Label is not installed; start it with make label, or see docs/monai_label.md")
    given = {"config": config, "train_config": train_config, "weights": weights, "device": device, "labels": labels}
    conf = {key: value if isinstance(value, str) else ",".join(value) for key, value in given.items() if value}
    ServerSettings.read(conf)
    images = Path(studies) if studies and "://" not in studies else None
    if images is not None:
        images_in(images)  # before anything is written
    folder = Path(home).absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if images is not None:
        place = str(linked_studies(images, folder))
    else:
        place = studies or str(simulated_studies(folder / "studies"))
    (folder / "main.py").write_text(MAIN)
    address = f"http://{host}:{port}"
    environment = {
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "MONAI_LABEL_DATASTORE_CACHE_PATH": str(folder / "dicom"),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "dicom"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    for name, default in environment.items():
        os.environ.setdefault(name, default)
    # MONAI Label calls the tools of its environment by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    print(
        f"registration server: {address} (stop with Ctrl-C)\n"
        f"  images:    {studies or place}\n"
        f"  labels:    {Path(place) / FINAL if '://' not in place else place}\n"
        f"  3D Slicer: module MONAI Label, server {address}, Next Sample, model carry_label, Run\n"
        f"  OHIF:      {address}/ohif/ where the images come from a DICOMweb server\n"
        f"  programs:  POST {address}/infer/registration?image=ID, see docs/monai_label.md",
        flush=True,
    )
    if host not in LOOPBACK:
        print(f"warning: whoever reaches {host}:{port} may read, change and delete all images; see docs/monai_label.md")
    # They say which file they are about, and its name may be that of a patient.
    warnings.filterwarnings("ignore", category=DataWarning)
    # MONAI Label reads its settings from the environment when it is imported.
    from monailabel.main import Main

    sys.argv = ["monailabel", "start_server", "--app", str(folder), "--studies", place, "--host", host]
    sys.argv += ["--port", str(port), "--verbose", "WARNING", "--uvicorn_app", "bundle.apps.label.server:app"]
    for key, text in conf.items():
        sys.argv += ["--conf", key, text]
    Main(loglevel=logging.WARNING).run()


if __name__ == "__main__":
    console.setup()
    commands.run("python -m bundle.apps.label", serve, sys.argv[1:], bundle.version)
