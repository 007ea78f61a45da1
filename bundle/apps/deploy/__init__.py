"""Registration as a MONAI Deploy application: DICOM series or a NIfTI pair in, DICOM and NIfTI out."""

import resource

STACK = 32 << 20
"""Bytes of stack that Holoscan asks for as soon as it is imported, which importing MONAI does."""

_allowed, _most = resource.getrlimit(resource.RLIMIT_STACK)
if 0 <= _allowed < STACK and (_most < 0 or _most >= STACK):
    resource.setrlimit(resource.RLIMIT_STACK, (STACK, _most))
