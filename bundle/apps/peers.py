"""Other registration programs as commands: ``python peers.py ants|greedy|convexadam FIXED MOVING OUTPUT``.

Each registers MOVING to FIXED (NIfTI) with its usual values and writes OUTPUT.nii.gz, a displacement in mm as ITK and
ANTs read it. The programs want versions of numpy and scipy of their own, so this file imports nothing of the bundle and
runs in an environment of theirs::

    python -m venv .venv-peers
    .venv-peers/bin/pip install antspyx picsl_greedy convexAdam
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

INTENT_VECTOR = 1007
NCC_RADIUS = 4


def ants(fixed: str, moving: str, output: str) -> None:
    """Affine, then SyN with cross-correlation (Avants et al. 2008)."""
    import ants as antspy

    images = [antspy.image_read(path) for path in (fixed, moving)]
    settings = {"type_of_transform": "SyN", "syn_metric": "CC", "syn_sampling": NCC_RADIUS, "random_seed": 1}
    # The images are aligned already, and the centre of mass of an ultrasound volume is where its speckle is bright.
    found = antspy.registration(*images, initial_transform="Identity", **settings)
    written = antspy.apply_transforms(*images, transformlist=found["fwdtransforms"], compose=output)
    shutil.move(written, f"{output}.nii.gz")


def greedy(fixed: str, moving: str, output: str) -> None:
    """Affine, then the greedy diffeomorphic algorithm (Yushkevich et al. 2016), with local cross-correlation."""
    from picsl_greedy import Greedy3D

    program = Greedy3D()
    metric = f"-m NCC {NCC_RADIUS}x{NCC_RADIUS}x{NCC_RADIUS} -i {fixed} {moving}"
    program.execute(f"-a -dof 12 {metric} -n 100x50x10 -ia-identity -o {output}_affine.mat")
    program.execute(f"{metric} -n 100x50x10 -s 2vox 0.5vox -it {output}_affine.mat -o {output}_warp.nii.gz")
    # One field of both parts.
    program.execute(f"-rf {fixed} -r {output}_warp.nii.gz {output}_affine.mat -rc {output}.nii.gz")


def convexadam(fixed: str, moving: str, output: str) -> None:
    """Coupled convex optimisation and Adam on MIND features (Siebert et al. 2021), without an affine before it."""
    import nibabel as nib
    import numpy as np
    from convexAdam.convex_adam_MIND import convex_adam_pt

    images = [nib.load(path) for path in (fixed, moving)]
    voxels = convex_adam_pt(*images)
    affine = images[0].affine
    lps = (voxels @ affine[:3, :3].T) * [-1, -1, 1]
    field = nib.Nifti1Image(lps[..., None, :].astype(np.float32), affine)
    field.header.set_intent(INTENT_VECTOR)
    nib.save(field, f"{output}.nii.gz")


PEERS: dict[str, Callable[[str, str, str], None]] = {"ants": ants, "greedy": greedy, "convexadam": convexadam}


def main(arguments: list[str]) -> str | None:
    """Run one program; the answer is what was wrong with the arguments."""
    if len(arguments) != 4 or arguments[0] not in PEERS:
        return f"usage: peers.py {'|'.join(PEERS)} FIXED MOVING OUTPUT"
    name, *paths = arguments
    try:
        PEERS[name](*paths)
    except ImportError as error:
        return f"{name} is not installed for {sys.executable} ({error}); see the top of {__file__}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
