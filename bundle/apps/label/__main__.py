"""``python -m bundle.apps.label``: start the server, for this machine alone unless told otherwise."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

import fire
import nibabel as nib

from bundle import console
from bundle.data import simulate_dataset

MAIN = Path(__file__).with_name("main.py")


def simulated_studies(folder: Path) -> Path:
    """Write simulated ultrasound of six patients as a datastore: images, labels of the gland, ``patients.csv``.

    Args:
        folder: where to; one that is there already is left as it is.
    """
    if (folder / "patients.csv").exists():
        return folder
    source = simulate_dataset(folder.with_name(f"{folder.name}_source"), patients=6)
    final = folder / "labels" / "final"
    final.mkdir(parents=True, exist_ok=True)
    for image in sorted((source / "images").iterdir()):
        shutil.copyfile(image, folder / image.name)
        # The second scan of every patient waits for the label of the first.
        if "_0" in image.name:
            label = nib.load(source / "labels" / image.name)
            nib.save(label.slicer[..., 0], final / image.name)
    shutil.copyfile(source / "patients.csv", folder / "patients.csv")
    shutil.rmtree(source)
    return folder


def serve(
    studies: str | None = None,
    home: str = "runs/label",
    host: str = "127.0.0.1",
    port: int = 8000,
    **conf: object,
) -> None:
    """Start MONAI Label with the registration app.

    Args:
        studies: folder of images, or address of a DICOMweb server; without it patients are simulated.
        home: folder for weights, trainings, logs and uploads.
        host: address to listen at; 127.0.0.1 answers this machine alone.
        port: number of the port.
        conf: config, train_config, weights, device, labels; docs/monai_label.md.
    """
    folder = Path(home).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.umask(0o077)
    shutil.copyfile(MAIN, folder / "main.py")
    place = studies or str(simulated_studies(folder / "studies"))
    address = f"http://{host}:{port}"
    environment = {
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "MONAI_LABEL_DATASTORE_CACHE_PATH": str(folder / "dicom"),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "dicom"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    # MONAI Label calls the tools of its environment by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    print(
        f"registration server: {address} (stop with Ctrl-C)\n"
        f"  images:    {place}\n"
        f"  3D Slicer: module MONAI Label, server {address}, Next Sample, model carry_label, Run\n"
        f"  OHIF:      {address}/ohif/ where the images come from a DICOMweb server\n"
        f"  programs:  POST {address}/infer/registration?image=ID, see docs/monai_label.md",
        flush=True,
    )
    # MONAI Label reads its settings from the environment when it is imported.
    from monailabel.main import Main

    sys.argv = ["monailabel", "start_server", "--app", str(folder), "--studies", place, "--host", host]
    sys.argv += ["--port", str(port), "--verbose", "WARNING", "--uvicorn_app", "bundle.apps.label.server:app"]
    for key, value in conf.items():
        sys.argv += ["--conf", key, ",".join(value) if isinstance(value, tuple | list) else str(value)]
    Main(loglevel=logging.WARNING).run()


if __name__ == "__main__":
    console.setup()
    fire.Fire(serve, name="python -m bundle.apps.label")
