"""From a pair to a displacement."""

from bundle.registration.adaptation import (
    INITIAL_ALIGNMENT,
    STOPPED,
    Adaptation,
    BestState,
    OptimizerFactory,
    Version,
    adapt,
    check_finite,
    inner_loop,
)
from bundle.registration.commands import CommandInferer
from bundle.registration.consistency import ConsistencyInferer
from bundle.registration.correction import FieldCorrection
from bundle.registration.inferers import AdaptationInferer, ClassicalInferer, DisplacementField
from bundle.registration.losses import LabelLoss, RegistrationLoss
from bundle.registration.moving import Moving, moved_names
from bundle.registration.networks import (
    CoarseNetwork,
    FixedSizeNetwork,
    GlobalThenLocal,
    RegistrationNetwork,
    use_instance_statistics,
)
from bundle.registration.overlap import AnatomySimilarity, OverlapLoss
from bundle.registration.regularisations import BendingEnergyLoss
from bundle.registration.residual import ResidualField, check_moved
from bundle.registration.search import DisplacementSearch, SearchInferer
from bundle.registration.similarities import (
    GlobalMutualInformationLoss,
    LocalMutualInformationLoss,
    LocalNormalizedCrossCorrelationLoss,
    MSELoss,
)
from bundle.registration.weights import (
    SharedWeightsLoader,
    WeightsLoader,
    fingerprint_of_network,
    fingerprint_of_weights,
    read_weights,
    ships,
    weights_of,
)

__all__ = [
    "Adaptation",
    "AdaptationInferer",
    "AnatomySimilarity",
    "BendingEnergyLoss",
    "BestState",
    "ClassicalInferer",
    "CoarseNetwork",
    "CommandInferer",
    "ConsistencyInferer",
    "DisplacementField",
    "DisplacementSearch",
    "FieldCorrection",
    "FixedSizeNetwork",
    "GlobalMutualInformationLoss",
    "GlobalThenLocal",
    "INITIAL_ALIGNMENT",
    "LabelLoss",
    "LocalMutualInformationLoss",
    "LocalNormalizedCrossCorrelationLoss",
    "MSELoss",
    "Moving",
    "OptimizerFactory",
    "OverlapLoss",
    "RegistrationLoss",
    "RegistrationNetwork",
    "ResidualField",
    "STOPPED",
    "SearchInferer",
    "SharedWeightsLoader",
    "Version",
    "WeightsLoader",
    "adapt",
    "check_finite",
    "check_moved",
    "fingerprint_of_network",
    "fingerprint_of_weights",
    "inner_loop",
    "moved_names",
    "read_weights",
    "ships",
    "use_instance_statistics",
    "weights_of",
]
