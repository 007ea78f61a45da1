"""Operators of the application, between those of MONAI Deploy: a pair is found, registered, written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.deploy.core import (
    ConditionType,
    ExecutionContext,
    Fragment,
    InputContext,
    Operator,
    OperatorSpec,
    OutputContext,
)
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator

from bundle.api import register
from bundle.apps.deploy.inputs import nifti_pair, series_pair
from bundle.apps.deploy.results import write_results
from bundle.apps.deploy.settings import Settings
from bundle.data import SIDES


class NiftiPairOperator(Operator):
    """Names the NIfTI files of the input folder.

    Output:
        pair: ``bundle.apps.deploy.inputs.Pair``.
    """

    def __init__(self, fragment: Fragment, *args: Any, folder: Path, **kwargs: Any) -> None:
        self.folder = folder
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the ports."""
        spec.output("pair")

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        """Find the files."""
        op_output.emit(nifti_pair(self.folder), "pair")


class SideSelectorOperator(DICOMSeriesSelectorOperator):
    """MONAI Deploy's selector of all series that fit a side; its errors name the conditions that it cannot compare.

    Args:
        fragment: the application.
        side: fixed or moving.
        settings: settings with the conditions.
    """

    def __init__(self, fragment: Fragment, *args: Any, side: str, settings: Settings, **kwargs: Any) -> None:
        self.side = side
        self.settings = settings
        super().__init__(fragment, *args, rules=settings.rules(side), all_matched=True, **kwargs)

    def filter(self, *args: Any, **kwargs: Any) -> Any:
        """Select.

        Raises:
            ValueError: for a condition whose kind does not match the attribute's.
        """
        try:
            return super().filter(*args, **kwargs)
        except (AttributeError, TypeError, NotImplementedError) as error:
            conditions = ", ".join(f"{name} {value!r}" for name, value in self.settings.series[self.side].items())
            raise ValueError(
                f"series, {self.side}: a condition does not suit what the files have ({conditions}); a text takes a "
                "regular expression, a number a number or a range, several words a list of words"
            ) from error


class SeriesPairOperator(Operator):
    """Puts the selected DICOM series into private folders of links.

    The files come from the input folder, not from MONAI Deploy's studies: if two slices lie at one place, perhaps of
    two echoes, its loader silently drops one, while the bundle separates or refuses them.

    Inputs:
        fixed, moving: lists of ``StudySelectedSeries``.

    Output:
        pair: ``bundle.apps.deploy.inputs.Pair``.
    """

    def __init__(self, fragment: Fragment, *args: Any, folder: Path, private: Path, **kwargs: Any) -> None:
        self.folder = folder
        self.private = private
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the ports."""
        for side in SIDES:
            spec.input(side)
        spec.output("pair")

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        """Find the files of the two series."""
        chosen = {
            side: [
                str(selected.series.SeriesInstanceUID)
                for study in op_input.receive(side)
                for selected in study.selected_series
            ]
            for side in SIDES
        }
        op_output.emit(series_pair(self.folder, chosen, self.private), "pair")


class RegistrationOperator(Operator):
    """Registers the pair as the inference workflow does.

    MONAI Deploy's own operator for bundles converts images to 8-bit integers and forbids gradients, which the steps on
    the pair need.

    Input:
        pair: ``bundle.apps.deploy.inputs.Pair``.

    Output:
        registration: ``bundle.Registration``, and whether it can be written as DICOM.
    """

    def __init__(self, fragment: Fragment, *args: Any, settings: Settings, weights: Path, **kwargs: Any) -> None:
        self.settings = settings
        self.weights = weights
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the ports."""
        spec.input("pair")
        spec.output("registration")

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        """Register."""
        pair = op_input.receive("pair")
        registration = register(
            pair.fixed,
            pair.moving,
            fixed_label=pair.fixed_label,
            moving_label=pair.moving_label,
            config_file=self.settings.config_file,
            weights=str(self.weights),
            steps=self.settings.steps,
        )
        op_output.emit((registration, pair.is_dicom), "registration")


class ResultsOperator(Operator):
    """Writes the results.

    Input:
        registration: output of ``RegistrationOperator``.
    """

    def __init__(self, fragment: Fragment, *args: Any, folder: Path, **kwargs: Any) -> None:
        self.folder = folder
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the ports."""
        spec.input("registration").condition(ConditionType.MESSAGE_AVAILABLE)

    def compute(self, op_input: InputContext, op_output: OutputContext, context: ExecutionContext) -> None:
        """Write."""
        registration, dicom = op_input.receive("registration")
        print("results:", write_results(registration, self.folder, dicom), flush=True)
