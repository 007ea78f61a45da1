"""Files of a pair -> images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import LoadImage, MapTransform

from bundle.data.errors import brief


class LoadPaird(MapTransform):
    """MONAI's ``LoadImage``, channel first, for every file of a pair; an error names the file.

    Args:
        keys: of the files, whose paths become images with metadata.
        allow_missing_keys: as in MONAI.
    """

    def __init__(self, keys: str | list[str], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadImage(image_only=True, ensure_channel_first=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every file.

        Raises:
            ValueError: when one cannot be read.
        """
        output = dict(data)
        for key in self.key_iterator(output):
            try:
                output[key] = self.load(output[key])
            except Exception as error:  # every reader fails in its own way: OSError, EOFError, zlib.error ...
                raise ValueError(f"{output[key]}: cannot be read, damaged or not an image ({brief(error)})") from error
        return output
