"""What anatomy is: from an image to soft maps of its structures and landmarks."""

from bundle.maps.augmentation import RandDepthAttenuationd, RandShadowd
from bundle.maps.beside import copy_beside, copy_weights, fingerprint_beside, maps_beside
from bundle.maps.dataset import SeededDataset
from bundle.maps.losses import LandmarkDistance, MapLoss
from bundle.maps.network import MapNetwork, check_spacing, map_unet, read_map_network, start_rare
from bundle.maps.seen import check_unseen, write_seen
from bundle.maps.targets import CheckImaged, MapTargetsd
from bundle.maps.transform import AnatomyMapsd, certainty

__all__ = [
    "AnatomyMapsd",
    "CheckImaged",
    "LandmarkDistance",
    "MapLoss",
    "MapNetwork",
    "MapTargetsd",
    "RandDepthAttenuationd",
    "RandShadowd",
    "SeededDataset",
    "certainty",
    "check_spacing",
    "check_unseen",
    "copy_beside",
    "copy_weights",
    "fingerprint_beside",
    "map_unet",
    "maps_beside",
    "read_map_network",
    "start_rare",
    "write_seen",
]
