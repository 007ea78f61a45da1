"""The registration task of the server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from bundle.apps.label.datastore import Images, numbered_otherwise
from bundle.apps.label.errors import ClientError
from bundle.apps.label.registrar import Registrar
from bundle.apps.label.request import FINAL, LABEL, MAPS, Wanted
from bundle.apps.label.results import named, new_file, summary, write_result

logger = logging.getLogger(__name__)


class RegistrationTask(InferTask):
    """Warp one image of the datastore, or its label, onto another.

    Args:
        registrar: does the registration.
        images: images of the datastore.
        results: folder of the files that are being sent to a client.
        uploaded: request -> file of an image that the client has uploaded instead of giving an id; None without one.
        outputs: what can be asked for; the first is the default.
        kind: in which list of a viewer the task appears.
        description: text for people.
    """

    def __init__(
        self,
        registrar: Registrar,
        images: Images,
        results: Path,
        uploaded: Callable[[Mapping[str, Any]], Path | None],
        outputs: tuple[str, ...],
        kind: InferType,
        description: str,
    ) -> None:
        super().__init__(kind, None, 3, description)
        self.registrar = registrar
        self.images = images
        self.results = results
        self.uploaded = uploaded
        self.outputs = list(outputs)

    def is_valid(self) -> bool:
        """The task is available as long as the server is."""
        return True

    def get_path(self, validate: bool = True) -> None:
        """No file: MONAI Label would hand it out, and let clients replace and delete it."""

    def info(self) -> dict[str, Any]:
        """What viewers show: names of structures by value, and parameters with their choices."""
        return {**super().info(), "labels": named(self._names() or [1], self._names())}

    def config(self) -> dict[str, Any]:
        """Parameters of a request and their defaults; 3D Slicer and OHIF let their users edit them."""
        return {
            "moving": ["", *sorted(self.images.store.list_images())],
            "steps": self.registrar.settings.steps,
            "output": self.outputs,
            "label": FINAL,
        }

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Register what a request asks for.

        Args:
            request: ``image`` (id of the fixed image), ``moving``, ``steps``, ``output``, ``label``,
                ``result_extension``.

        Returns:
            The file, and the JSON of the answer.

        Raises:
            ClientError: for a request that cannot be done.
        """
        start = time.monotonic()
        wanted = Wanted.read(request, self.config())
        upload = self.uploaded(request)
        fixed = upload or self.images.file(wanted.fixed, "image")
        moving = wanted.moving or self.registrar.record.proposed(wanted.fixed)
        if wanted.proposal and not upload:
            moving = wanted.fixed  # the maps are of this image alone
        if not moving:
            raise ClientError(
                "no moving image: give its id as the parameter 'moving' (Options of the viewer), one of GET "
                "/datastore/?output=all, or take the pair that the strategy 'largest_loss' proposes"
            )
        moving_file = self.images.file(moving, "moving")
        label = None if wanted.proposal else self._moving_label(moving, wanted)
        fixed_label = None if upload or label is None else self.images.label(wanted.fixed, wanted.label)
        pair = (self.images.structures(image, wanted.label) for image in (wanted.fixed, moving))
        other = numbered_otherwise(*pair) if fixed_label else ""
        found = self.registrar(
            (wanted.fixed, moving),
            fixed,
            moving_file,
            0 if wanted.proposal else wanted.steps,
            None if other else fixed_label,
            label,
            noted=upload is None and not wanted.proposal,
        )
        if wanted.proposal and found.proposed_label is None:
            raise ClientError(f"label is {MAPS!r}, and the weights of this server have no map networks; give a tag")
        with new_file(self.results, wanted.suffix) as file:
            values = write_result(found, wanted.output, file, wanted.proposal)
            answer = summary(found, wanted.fixed, moving, wanted.output)
            if other:
                answer["reasons"] += [f"the labels of the two images are not compared: {other}"]
            saved = {} if wanted.proposal else self.images.label_names(moving, wanted.label)
            remark = " (proposed)" if wanted.proposal else ""
            answer["label_names"] = named(values, saved | self._stated_names(), remark)
        answer["seconds"] = round(time.monotonic() - start, 3)
        # Ids of images are file names, which may name patients.
        logger.info(
            "%s, %d steps: %s, %.1f s", wanted.output, wanted.steps, answer["verdict"], time.monotonic() - start
        )
        return str(file), answer

    def _moving_label(self, moving: str, wanted: Wanted) -> Path | None:
        # Viewers send the default tag with every request, even if nothing is labelled yet.
        if wanted.output == LABEL or wanted.label != FINAL:
            return self.images.require_label(moving, wanted.label)
        return self.images.label(moving, wanted.label)

    def _stated_names(self) -> dict[int, str]:
        return dict(enumerate(self.registrar.settings.labels, start=1))

    def _names(self) -> dict[int, str]:
        """Value -> name of the structures of all labels."""
        names: dict[int, str] = {}
        for image in self.images.store.list_images():
            for tag in self.images.store.get_labels_by_image_id(image):
                names |= self.images.label_names(image, tag)
        return names | self._stated_names()
