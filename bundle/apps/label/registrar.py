"""Registration of images of the datastore by ``bundle.register``, and the weights that it uses."""

from __future__ import annotations

from pathlib import Path

from bundle import Registration, register
from bundle.apps.label.errors import one_answer
from bundle.apps.label.record import LossRecord
from bundle.apps.label.settings import ServerSettings
from bundle.maps import copy_weights, fingerprint_beside
from bundle.system import fingerprint


class Registrar:
    """Registers with the served weights, and records the losses.

    Args:
        settings: settings of the server.
        served: its weights.
        record: stores the loss of every pair that is registered with the server's number of steps.
    """

    def __init__(self, settings: ServerSettings, served: ServedWeights, record: LossRecord) -> None:
        self.settings = settings
        self.served = served
        self.record = record

    @property
    def origin(self) -> str:
        """Text that identifies what the losses depend on besides the images."""
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
            pair: ids of the fixed and the moving image, used in messages in place of their files.
            fixed: file of the fixed image.
            moving: file of the moving image.
            steps: gradient steps; None uses the server's number.
            fixed_label: used to score.
            moving_label: used to score, and carried over.
            noted: whether the loss is recorded; not for an upload, whose name is not an id and may name a patient.

        Raises:
            ClientError: when the pair cannot be registered.
        """
        origin = self.origin
        steps = self.settings.steps if steps is None else steps
        names = {fixed: f"fixed image {pair[0]!r}", moving: f"moving image {pair[1]!r}"}
        with one_answer(names):
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
        if noted and steps == self.settings.steps:
            self.record.add(origin, pair, found.metrics["adaptation"]["best_loss"])
        return found


class ServedWeights:
    """Weights in a folder: those that training has published, else those with which the server was started.

    Args:
        folder: folder of the published weights, ``model.pt``, and the previous ones, ``model_previous.pt``.
        start: weights until training publishes some.
    """

    def __init__(self, folder: Path, start: Path) -> None:
        self.published = folder / "model.pt"
        self.previous = folder / "model_previous.pt"
        self.start = start

    @property
    def path(self) -> Path:
        """File of the weights that are served now."""
        return self.published if self.published.exists() else self.start

    def digest(self) -> str:
        """Text that identifies the weights that are served now, and their maps."""
        return fingerprint_beside(self.path)

    def publish(self, weights: Path) -> None:
        """Serve other weights from the next request on, and keep the previous ones.

        Args:
            weights: file that is copied.

        Raises:
            OSError: when it cannot be written; the previous weights are still served.
        """
        # The previous weights are copied rather than moved, so there are always weights to serve.
        for source, target in ((self.path, self.previous), (weights, self.published)):
            copy_weights(source, target)
