"""Registration of images of the datastore by the bundle's one path, ``bundle.register``."""

from __future__ import annotations

from pathlib import Path

from bundle import Registration, register
from bundle.apps.label.errors import ClientError, one_answer
from bundle.apps.label.record import LossRecord
from bundle.apps.label.served import ServedWeights
from bundle.apps.label.settings import ServerSettings
from bundle.data import fingerprint


class Registrar:
    """Registers with the served weights, and notes the losses.

    Args:
        settings: of the server.
        served: its weights.
        record: takes up the loss of every pair that is registered with the server's number of steps.
    """

    def __init__(self, settings: ServerSettings, served: ServedWeights, record: LossRecord) -> None:
        self.settings = settings
        self.served = served
        self.record = record

    @property
    def origin(self) -> str:
        """Text that stands for what the losses depend on besides the images."""
        contents = [Path(file).read_text() for file in self.settings.config]
        return fingerprint(self.served.digest(), contents, self.settings.steps)

    def __call__(
        self,
        pair: tuple[str, str],
        fixed: Path,
        moving: Path,
        steps: int | None = None,
        fixed_label: Path | None = None,
        moving_label: Path | None = None,
        noted: bool = True,
    ) -> Registration:
        """Register a pair.

        Args:
            pair: ids of the fixed and the moving image, which stand for their files in messages.
            fixed: file of the image.
            moving: file of the image.
            steps: gradient steps; None takes the server's number.
            fixed_label: scored.
            moving_label: scored and carried over.
            noted: whether the loss is noted; not of an upload, whose name is no id and may be that of a patient.

        Raises:
            ClientError: when the pair cannot be registered.
        """
        origin = self.origin
        steps = self.settings.steps if steps is None else steps
        names = {fixed: f"fixed image {pair[0]!r}", moving: f"moving image {pair[1]!r}"}
        try:
            with one_answer():
                found = register(
                    fixed,
                    moving,
                    config_file=self.settings.config,
                    fixed_label=fixed_label,
                    moving_label=moving_label,
                    steps=steps,
                    weights=str(self.served.path),
                    device=self.settings.device,
                )
        except ClientError as error:
            message = str(error)
            for file, name in names.items():
                message = message.replace(str(file), name)
            raise ClientError(message, error.status) from error
        if noted and steps == self.settings.steps:
            self.record.add(origin, pair, min(found.metrics["loss"]))
        return found
