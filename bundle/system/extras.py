"""Libraries of the package's extras: large, and imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Later:
    """A module that is imported at its first use.

    Args:
        name: name of the module.
        extra: extra of the package that installs it.
        purpose: what it is needed for, as the beginning of a sentence.
    """

    def __init__(self, name: str, extra: str, purpose: str) -> None:
        self._name, self._extra, self._purpose = name, extra, purpose

    def __getattr__(self, attribute: str) -> Any:
        """An attribute of the module.

        Raises:
            ModuleNotFoundError: when it is not installed, saying how to.
        """
        if attribute.startswith("__"):  # asked by copy, pickle and inspect of the object itself
            raise AttributeError(attribute)
        try:
            module = import_module(self._name)
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"{self._purpose} needs {self._name}, which is not installed; "
                f"pip install 'meta-registration-bundle[{self._extra}]'",
                name=self._name,
            ) from None
        return getattr(module, attribute)


itk = Later("itk", "dicom", "reading and writing DICOM, NRRD, MetaImage and transforms of ITK")
highdicom = Later("highdicom", "dicom", "writing a DICOM segmentation")
