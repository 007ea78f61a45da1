"""Pure maths on grids, fields and points."""

from typing import TYPE_CHECKING

from bundle.system.on_demand import on_demand

if TYPE_CHECKING:
    from bundle.geometry.affines import (
        LPS_SIGNS,
        RAS_TO_LPS,
        centre_of_volume,
        corner_distance,
        flip,
        initial_alignment,
        isotropic_grid,
        spacing_of,
        transform_points,
    )
    from bundle.geometry.correspondence import corresponding_rows
    from bundle.geometry.fields import (
        Warp,
        compose,
        folded_voxels,
        integrate,
        jacobian_determinant,
        log_jacobian_sd,
        native_ddf,
    )
    from bundle.geometry.grids import (
        LINEAR,
        apply_affine,
        at_faces,
        averages,
        ddf_to_displacement,
        enlarge_ddf,
        inside_grid,
        lift_ddf,
        resize_ddf,
        sample,
        voxel_grid,
        warp_native,
        without_alignment,
    )
    from bundle.geometry.points import centroids, fixed_to_moving, move_points, moving_to_fixed
    from bundle.geometry.transforms import Displacement, Transform, aligned_transform
else:
    __getattr__, __dir__ = on_demand(__name__, __file__)

__all__ = [
    "Displacement",
    "LINEAR",
    "LPS_SIGNS",
    "RAS_TO_LPS",
    "Transform",
    "Warp",
    "aligned_transform",
    "apply_affine",
    "at_faces",
    "averages",
    "centre_of_volume",
    "centroids",
    "compose",
    "corner_distance",
    "corresponding_rows",
    "ddf_to_displacement",
    "enlarge_ddf",
    "fixed_to_moving",
    "flip",
    "folded_voxels",
    "initial_alignment",
    "inside_grid",
    "integrate",
    "isotropic_grid",
    "jacobian_determinant",
    "lift_ddf",
    "log_jacobian_sd",
    "move_points",
    "moving_to_fixed",
    "native_ddf",
    "resize_ddf",
    "sample",
    "spacing_of",
    "transform_points",
    "voxel_grid",
    "warp_native",
    "without_alignment",
]
