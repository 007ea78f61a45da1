"""Settings chosen when the server is started, which no client can change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle.api import read_configuration
from bundle.system import processes
from bundle.system.configurations import find_configurations, on_inference

KEYS = ("config", "train_config", "weights", "device", "labels")
OF_MONAI_LABEL = ("server_mode",)


@dataclass(frozen=True)
class ServerSettings:
    """The server's settings.

    Attributes:
        config: configuration and overlays of registration, files or names in ``configs/``.
        train_config: configuration and overlays of training.
        start: weights to serve until training has published better ones.
        device: device of registration and training: ``cuda:0`` or ``cpu``.
        labels: names of the values 1, 2, ... of labels; empty if the datastore names them.
        steps: gradient steps of a request that does not say how many.
    """

    config: tuple[str, ...]
    train_config: tuple[str, ...]
    start: Path
    device: str
    labels: tuple[str, ...]
    steps: int

    @classmethod
    def read(cls, conf: Mapping[str, str]) -> ServerSettings:
        """Settings of ``--conf key value``: ``config``, ``train_config``, ``weights``, ``device``, ``labels``.

        Args:
            conf: the values as texts; lists are separated by commas.

        Raises:
            FileNotFoundError: for a missing configuration or weights.
            ValueError: for an unknown key or device.
        """
        unknown = sorted(set(conf) - {*KEYS, *OF_MONAI_LABEL})
        if unknown:
            raise ValueError(f"--conf has {', '.join(unknown)}; expected {', '.join(KEYS)}")
        config = tuple(on_inference(_list(conf.get("config", ""))))
        parser = read_configuration(config, {})
        start = Path(conf.get("weights") or parser.get_parsed_content("weights")).absolute()
        if not start.is_file():
            raise FileNotFoundError(f"weights not found: {start}; give a file with --weights, such as models/model.pt")
        # Training takes the overlays of registration, such as a preset, since its weights have to fit them.
        train_config = _list(conf["train_config"]) if "train_config" in conf else ("train.yaml", *config[1:])
        read_configuration(train_config, {})
        device = conf.get("device") or str(parser.get_parsed_content("device"))
        processes.check_device(device)
        return cls(
            _files(config),
            _files(train_config),
            start,
            device,
            _list(conf.get("labels", "")),
            int(parser["steps"]),
        )


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _files(names: tuple[str, ...]) -> tuple[str, ...]:
    # Training runs in a separate process, perhaps in another folder.
    return tuple(str(path.absolute()) for path in find_configurations(names))
