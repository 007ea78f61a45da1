"""The application that MONAI Label serves."""

from __future__ import annotations

import atexit
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from bundle.apps.label.datastore import Images, OriginalsKept
from bundle.apps.label.errors import ClientError, one_answer
from bundle.apps.label.infer import RegistrationTask
from bundle.apps.label.record import LossRecord
from bundle.apps.label.registrar import Registrar, ServedWeights
from bundle.apps.label.request import LABEL, OUTPUTS
from bundle.apps.label.results import removed_on_error
from bundle.apps.label.settings import ServerSettings
from bundle.apps.label.strategy import LargestLoss
from bundle.apps.label.train import MetaTraining

REGISTRATION, CARRY_LABEL = "registration", "carry_label"
TALKATIVE = (
    "monailabel",  # logs ids and parameters of every request
    "ignite.engine.engine.RegistrationEvaluator",  # logs pairs, and what is wrong with their files
)
"""Loggers that are silenced: the id of an image may be the name of a patient."""
TASKS = ("task_train", "task_batch_infer", "task_scoring")
"""Loggers of the lines that the processes of tasks print."""
SESSION = re.compile(r"[0-9a-f-]{36}")


@contextmanager
def http() -> Iterator[None]:
    """Turn every error of the body into an HTTP answer of one line."""
    try:
        with one_answer():
            yield
    except ClientError as error:
        raise HTTPException(error.status, str(error)) from error


def names_nothing(record: logging.LogRecord) -> bool:
    """Whether a line of a task's process is ours, or the place of an error: others may hold ids and file names."""
    return re.search(r'\(bundle\.apps\.label|^  File "', record.getMessage()) is not None


class LinkedDatastore(OriginalsKept, LocalDatastore):
    """A folder of links to images."""


class RegistrationApp(MONAILabelApp):
    """Registration, training and the choice of the next pair, on the images of a datastore.

    Args:
        app_dir: folder of the server; weights and records are kept in its ``model/registration``.
        studies: folder of images, or address of a DICOMweb server.
        conf: see ``ServerSettings.read``.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str] | None) -> None:
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        for name in TASKS:
            logging.getLogger(name).addFilter(names_nothing)
        logging.getLogger("bundle.apps.label").setLevel(logging.INFO)
        self.settings = ServerSettings.read(conf or {})
        self.folder = Path(app_dir) / "model" / REGISTRATION
        served = ServedWeights(self.folder, self.settings.start)
        self.registrar = Registrar(self.settings, served, LossRecord(self.folder / "losses.json"))
        self.results = Path(tempfile.mkdtemp(prefix="registration-"))
        atexit.register(shutil.rmtree, self.results, ignore_errors=True)
        super().__init__(
            app_dir, studies, dict(conf or {}), "Registration", "Meta-learned registration of pairs of images"
        )

    def init_datastore(self) -> Datastore:
        """The datastore, which takes ids only."""
        if "://" in self.studies:
            store, folder = super().init_datastore(), None
        else:
            folder = Path(self.studies)
            store = LinkedDatastore(
                self.studies,
                extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
                auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
                read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
            )
        # Over DICOMweb, the label of an image would be looked for as a series with the image's own UID.
        self.images = Images(store, folder, partial(LocalDatastore.get_label_uri, store))
        return store

    def init_infers(self) -> dict[str, InferTask]:
        """All outputs for programs; the label for viewers, which list segmentations."""
        shared = (self.registrar, self.images, self.results, self._uploaded)
        every = RegistrationTask(
            *shared, OUTPUTS, InferType.OTHERS, "Warp the image 'moving' onto this one: image, label or displacement"
        )
        label = RegistrationTask(
            *shared, (LABEL,), InferType.SEGMENTATION, "Carry the label of the image 'moving' over to this one"
        )
        return {REGISTRATION: every, CARRY_LABEL: label}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Meta-training from the served weights."""
        return {REGISTRATION: MetaTraining(self.settings, self.registrar.served, self.images, self.folder)}

    def init_strategies(self) -> dict[str, Strategy]:
        """The choice of the next pair to check."""
        return {LargestLoss.NAME: LargestLoss(self.registrar, self.images)}

    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer a request for a registration; errors reach the client as one line.

        Args:
            request: ``model``, ``image`` and parameters; with ``save_label`` a carried label is saved too.
            datastore: not used: ids refer to the app's own datastore.
        """
        with http():
            task = self._infers.get(request.get("model"))
            if task is None:
                raise ClientError(
                    f"no model {request.get('model')!r}; expected {', '.join(self._infers)}", HTTPStatus.NOT_FOUND
                )
            file, answer = task(request)
            with removed_on_error(Path(file)):
                saved = self._save(request, file, answer) if request.get("save_label") else None
            tag = request.get("label_tag", "original")
            return {"label": saved or file, "tag": tag, "file": file, "params": answer}

    def train(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Train; errors reach the client as one line.

        Args:
            request: ``model``, and parameters of ``MetaTraining``.

        Raises:
            HTTPException: in the server, where a client waits for the answer.
            SystemExit: in the process of a training, whose last line a client sees.
        """
        try:
            with one_answer():
                if request.get("model") not in self._trainers:
                    expected = ", ".join(self._trainers)
                    raise ClientError(
                        f"no training of {request.get('model')!r}; expected {expected}", HTTPStatus.NOT_FOUND
                    )
                return dict(super().train(request))
        except ClientError as error:
            if self._server_mode:
                raise HTTPException(error.status, str(error)) from error
            raise SystemExit(f"error: {error}") from error

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Propose a pair; errors reach the client as one line."""
        with http():
            if request.get("strategy") not in self._strategies:
                expected = ", ".join(self._strategies)
                raise ClientError(f"no strategy {request.get('strategy')!r}; expected {expected}", HTTPStatus.NOT_FOUND)
            return super().next_sample(request)

    def _save(self, request: Mapping[str, Any], file: str, answer: Mapping[str, Any]) -> str:
        if answer["output"] != LABEL:
            raise ClientError(f"save_label goes with the output {LABEL!r}, not with {answer['output']!r}")
        if self._uploaded(request) is not None:
            raise ClientError("save_label goes with an image of the datastore; add the uploaded one to it first")
        names = [{"name": name, "idx": value} for name, value in answer["label_names"].items()]
        tag = request.get("label_tag", "original")
        if tag not in ("original", "final"):
            raise ClientError(f"label_tag is {tag!r}; expected original or final")
        return str(self.datastore().save_label(request["image"], file, tag, {"label_info": names}))

    def _uploaded(self, request: Mapping[str, Any]) -> Path | None:
        """File of the session that a viewer opened for its own image; a path alone is never accepted."""
        session = request.get("session")
        if not session:
            return None
        name = str(session.get("name"))
        # A session is a folder; a path as its name would lead elsewhere.
        known = self.sessions().get_session(name) if self.sessions() is not None and SESSION.fullmatch(name) else None
        if known is None or known.image != request.get("image"):
            raise ClientError("the session is over; upload the image again", HTTPStatus.NOT_FOUND)
        return Path(known.image)

    def _download_dcmqi_tools(self) -> None:
        """Download nothing: the tool that writes DICOM SEG comes with the requirements."""
