"""Registration in MONAI Label: a server for 3D Slicer, OHIF and whatever speaks HTTP."""
