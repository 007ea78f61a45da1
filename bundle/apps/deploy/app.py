"""The application: operators and what flows between them."""

from __future__ import annotations

import sys
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator

from bundle.apps.deploy.inputs import has_nifti, listed
from bundle.apps.deploy.operators import (
    NiftiPairOperator,
    RegistrationOperator,
    ResultsOperator,
    SeriesPairOperator,
    SideSelectorOperator,
)
from bundle.apps.deploy.settings import Settings
from bundle.data import SIDES


class RegistrationApp(Application):
    """Registers the pair of images in a folder.

    Args:
        source: folder of DICOM series, or of a NIfTI pair.
        output: folder of the results.
        private: empty folder for files that are deleted after the run.
        weights: file of the weights.
        settings: settings of the run.
    """

    def __init__(self, source: Path, output: Path, private: Path, weights: Path, settings: Settings) -> None:
        self.source = source
        self.output = output
        self.private = private
        self.weights = weights
        self.settings = settings
        super().__init__([sys.executable])  # the command line has been read already

    def compose(self) -> None:
        """Connect the operators."""
        registration = RegistrationOperator(
            self, settings=self.settings, weights=self.weights, name="registration_operator"
        )
        results = ResultsOperator(self, folder=self.output, name="results_operator")
        self.add_flow(self._pair(), registration, {("pair", "pair")})
        self.add_flow(registration, results, {("registration", "registration")})

    def _pair(self) -> NiftiPairOperator | SeriesPairOperator:
        once = CountCondition(self, 1)
        if has_nifti(self.source):
            return NiftiPairOperator(self, once, folder=self.source, name="nifti_pair_operator")
        series = listed(self.source, self.private)
        loader = DICOMDataLoaderOperator(self, once, input_folder=series, name="dicom_loader_operator")
        pair = SeriesPairOperator(self, folder=self.source, private=self.private, name="series_pair_operator")
        for side in SIDES:
            selector = SideSelectorOperator(self, side=side, settings=self.settings, name=f"{side}_selector_operator")
            self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
            self.add_flow(selector, pair, {("study_selected_series_list", side)})
        return pair
