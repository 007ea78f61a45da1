"""Weights of a network from a file."""

from __future__ import annotations

from pathlib import Path

from ignite.engine import Engine
from monai.handlers import CheckpointLoader

from bundle.data import brief


class WeightsLoader(CheckpointLoader):
    """``CheckpointLoader`` whose errors name the file and what to do; arguments are those of ``CheckpointLoader``."""

    def __call__(self, engine: Engine) -> None:
        """Load the weights.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it holds no weights, or those of another network.
        """
        if not Path(self.load_path).is_file():
            raise FileNotFoundError(f"weights not found: {self.load_path}; give a file of weights, such as model.pt")
        try:
            super().__call__(engine)
        except Exception as error:  # the file's content decides: UnpicklingError, AttributeError, OSError ...
            raise ValueError(
                f"{self.load_path} does not hold weights of this network ({brief(error)}); "
                "give the options and overlays (channels, network_def) of the run that made it"
            ) from error
