"""From a pair to a displacement."""

from bundle.registration.adaptation import (
    INITIAL_ALIGNMENT,
    STOPPED,
    Adaptation,
    BestState,
    OptimizerFactory,
    Version,
    adapt,
)
from bundle.registration.apply import apply_transform
from bundle.registration.both_ways import TransformsBothWaysd
from bundle.registration.classical import DisplacementField
from bundle.registration.consistency import ConsistencyInferer
from bundle.registration.dicom_outputs import DicomOutputsd, check_one_patient, save_objects
from bundle.registration.evaluator import PairDataset, RegistrationEvaluator
from bundle.registration.finished import FinishedPairs
from bundle.registration.inferers import AdaptationInferer, ClassicalInferer
from bundle.registration.losses import AnatomySimilarity, LabelLoss, OverlapLoss, RegistrationLoss
from bundle.registration.moving import Moving, moved_names
from bundle.registration.networks import (
    CoarseNetwork,
    FixedSizeNetwork,
    GlobalThenLocal,
    RegistrationNetwork,
    use_instance_statistics,
)
from bundle.registration.outputs import NativeOutputsd, SavePaird
from bundle.registration.regularisations import BendingEnergyLoss
from bundle.registration.residual import ResidualField
from bundle.registration.similarities import (
    GlobalMutualInformationLoss,
    LocalMutualInformationLoss,
    LocalNormalizedCrossCorrelationLoss,
    MSELoss,
)
from bundle.registration.weights import SharedWeightsLoader, WeightsLoader, read_weights

__all__ = [
    "Adaptation",
    "AdaptationInferer",
    "AnatomySimilarity",
    "BendingEnergyLoss",
    "BestState",
    "ClassicalInferer",
    "CoarseNetwork",
    "ConsistencyInferer",
    "DicomOutputsd",
    "DisplacementField",
    "FinishedPairs",
    "FixedSizeNetwork",
    "GlobalMutualInformationLoss",
    "GlobalThenLocal",
    "INITIAL_ALIGNMENT",
    "LabelLoss",
    "LocalMutualInformationLoss",
    "LocalNormalizedCrossCorrelationLoss",
    "MSELoss",
    "Moving",
    "NativeOutputsd",
    "OptimizerFactory",
    "OverlapLoss",
    "PairDataset",
    "RegistrationEvaluator",
    "RegistrationLoss",
    "RegistrationNetwork",
    "ResidualField",
    "STOPPED",
    "SavePaird",
    "SharedWeightsLoader",
    "TransformsBothWaysd",
    "Version",
    "WeightsLoader",
    "adapt",
    "apply_transform",
    "check_one_patient",
    "moved_names",
    "read_weights",
    "save_objects",
    "use_instance_statistics",
]
