"""Registration as a MONAI Deploy application: DICOM series or a NIfTI pair in, DICOM and NIfTI out."""
