"""Registration in MONAI Label: a server for 3D Slicer, OHIF and any program that speaks HTTP."""
