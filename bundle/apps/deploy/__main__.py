"""``python -m bundle.apps.deploy -i INPUT -o OUTPUT -m MODELS``: register the pair of images in a folder."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
import warnings
from importlib.util import find_spec
from pathlib import Path

import pydicom

from bundle.apps.deploy.inputs import has_nifti
from bundle.apps.deploy.results import check_output
from bundle.apps.deploy.settings import read_settings
from bundle.system import console


def main() -> None:
    """Run the application once.

    Raises:
        ImportError: when MONAI Deploy is not installed.
        ValueError: for an input or a configuration that is not as expected.
        OSError: for missing weights, or an output that cannot be written.
    """
    prepare()
    if find_spec("monai.deploy") is None:
        raise ImportError("MONAI Deploy is not installed; docs/monai_deploy.md says how")
    from monai.deploy.core import AppContext, parse_args

    from bundle.apps.deploy.app import RegistrationApp

    given = {name: value for name, value in vars(parse_args()).items() if value}
    context = AppContext({name: str(value) for name, value in given.items()})
    settings = read_settings()
    source, output = Path(context.input_path), Path(context.output_path)
    weights = settings.weights_in(Path(context.model_path))
    has_nifti(source)
    check_output(output)
    with tempfile.TemporaryDirectory() as private:
        RegistrationApp(source, output, Path(private), weights, settings).run()


def prepare() -> None:
    """Silence everything that may name a patient.

    Holoscan prints the exceptions of operators, which this program reports in one line. MONAI Deploy's operators log
    paths and attributes of DICOM files, and pydicom warns of values that the standard does not allow.
    """
    console.setup()
    sys.excepthook = report
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")
    os.environ.setdefault("HOLOSCAN_LOG_LEVEL", "OFF")
    handler = logging.StreamHandler()
    handler.addFilter(names_no_patient)
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # the reason why a pair failed is raised as well
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler])


def names_no_patient(record: logging.LogRecord) -> bool:
    """Whether a log record does not come from MONAI Deploy's operators."""
    return "/monai/deploy/operators/" not in Path(record.pathname).as_posix()


def report(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Exception hook: print one line; for a bug of the program, its place in the source without the message."""
    if issubclass(kind, (*console.USER_ERRORS, KeyboardInterrupt)) or os.environ.get("BUNDLE_TRACEBACK"):
        console.report(kind, error, error.__traceback__)
    else:
        print(f"{kind.__name__} at\n{''.join(traceback.format_tb(error.__traceback__))}", file=sys.stderr)


if __name__ == "__main__":
    main()
