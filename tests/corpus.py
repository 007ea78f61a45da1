"""Malformed input by kind: every case with how it is written and the words that its one line has to hold."""

import gzip
import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import torch
from workflow_fixtures import SHAPE, pair, volume, write_dicom_series

from bundle.formats import write_transform
from bundle.geometry import Displacement, Transform

AFFINE = np.diag([5.0, 5.5, 6.0, 1.0])
LIMIT = "more than the 1073741824 that are read"
DAMAGED = "cannot be read, damaged or not an image"


CODE_HAS_RUN = Path(tempfile.gettempdir()) / "code_of_a_file_has_run"


class Malicious:
    """What leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (str(CODE_HAS_RUN),)


def image(number=0):
    return volume(100 + number)[0]


def nifti(name="moving.nii.gz", array=None, affine=AFFINE, **fields):
    """A NIfTI image, with fields of its header changed afterwards, in the bytes of the file."""

    def write(folder):
        whole = nib.Nifti1Image(image() if array is None else array, affine)
        content = whole.to_bytes()
        changed = nib.Nifti1Header.from_fileobj(io.BytesIO(content), check=False)
        for key, value in fields.items():
            changed[key] = value
        content = changed.binaryblock + content[changed.sizeof_hdr :]
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return folder / name

    return write


def file(name, content):
    """A file of these bytes; of what a function returns, so that nothing is made before it is needed."""

    def write(folder):
        path = folder / os.fsdecode(name)
        path.write_bytes(content() if callable(content) else content)
        return path

    return write


def cut(write, keep=0.5, at=0):
    """The beginning of what another case writes, which may be in a folder."""

    def written(folder):
        path = write(folder)
        target = sorted(path.iterdir())[at] if path.is_dir() else path
        content = target.read_bytes()
        target.write_bytes(content[: int(len(content) * keep)])
        return path

    return written


def ending_in_zeros(write, keep=0.7):
    """What a copy leaves that was broken off after it had made room for the file."""

    def written(folder):
        path = write(folder)
        content = path.read_bytes()
        kept = int(len(content) * keep)
        path.write_bytes(content[:kept] + bytes(len(content) - kept))
        return path

    return written


def flipped(write, at=0.7):
    """What another case writes, one bit of it changed."""

    def written(folder):
        path = write(folder)
        content = bytearray(path.read_bytes())
        content[int(len(content) * at)] ^= 4
        path.write_bytes(content)
        return path

    return written


def mgz(folder):
    nib.save(nib.MGHImage(image(), AFFINE), folder / "moving.mgz")
    return folder / "moving.mgz"


def patched(write, old, new):
    """What another case writes, some of its bytes replaced."""

    def written(folder):
        path = write(folder)
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new))
        return path

    return written


def by_itk(name, array=None, compression=False, **options):
    def write(folder):
        whole = itk.image_from_array((image() if array is None else array).T.copy(), **options)
        itk.imwrite(whole, str(folder / name), compression=compression)
        return folder / name

    return write


def dicom(folder):
    write_dicom_series(folder / "series", itk.image_from_array(image().astype(np.int16).T.copy()))
    return folder / "series"


def empty_folder(folder):
    (folder / "series").mkdir()
    return folder / "series"


def pipe(folder):
    os.mkfifo(folder / "moving.nii.gz")
    return folder / "moving.nii.gz"


def array(value, name="moving.npy"):
    def write(folder):
        np.save(folder / name, value, allow_pickle=True)
        return folder / name

    return write


def big_npy():
    header = repr({"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6, 10**6)}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def png_of(columns, rows):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def big_nifti2():
    header = nib.Nifti2Header()
    header.set_data_dtype(np.float32)
    header["dim"][:4] = (3, 10**6, 10**6, 10**6)
    header["vox_offset"] = 544
    return gzip.compress(header.binaryblock + b"\0" * 4)


def nifti_bomb():
    """A header of 512^3 voxels, and the voxels of a much smaller image behind it."""
    header = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4)).header
    header["dim"][1:4] = 512
    header["vox_offset"] = 352
    return gzip.compress(header.binaryblock + b"\0" * 1000)


def long_extension():
    """An extension of the header that says it has a GiB."""
    whole = nib.Nifti1Image(image(), AFFINE)
    whole.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 40))
    content = bytearray(whole.to_bytes())
    content[352:356] = struct.pack("<i", 2**30)
    return gzip.compress(bytes(content))


def spoilt(value):
    found = image()
    found[3, 4, 5] = value
    return found


def rgb_nrrd(folder):
    pixels = np.repeat(image().T.astype(np.uint8)[..., None], 3, axis=-1)
    itk.imwrite(itk.image_from_array(pixels, ttype=itk.Image[itk.RGBPixel[itk.UC], 3]), str(folder / "moving.nrrd"))
    return folder / "moving.nrrd"


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])

IMAGES = {
    "not_an_image": (file("moving.nii.gz", b"this is no image"), f"moving.nii.gz: {DAMAGED}"),
    "zipped_text": (file("moving.nii.gz", gzip.compress(b"no image")), f"moving.nii.gz: {DAMAGED}"),
    "wrong_magic": (patched(nifti("moving.nii"), b"n+1\0", b"nope"), f"moving.nii: {DAMAGED}"),
    "web_page": (
        file("moving.nii.gz", b"<!DOCTYPE html><html>404</html>"),
        "cannot be read, a web page",
    ),
    "half_of_a_pair": (file("moving.hdr", b"\0" * 348), "moving.hdr: no .img file beside it; copy it too"),
    "voxels_at_0": (nifti(vox_offset=0), "its voxels start at byte 0, expected 352 to 67108864"),
    "wrong_kind": (
        file("moving.nii.gz", png_of(20, 18)),
        "moving.nii.gz: cannot be read, PNG by its content; call it .png",
    ),
    "zero_size": (file("moving.nii.gz", b""), "moving.nii.gz: cannot be read, an empty file; copy it again"),
    "truncated_gz": (cut(nifti()), f"moving.nii.gz: {DAMAGED}"),
    "truncated": (cut(nifti("moving.nii")), f"moving.nii: {DAMAGED}"),
    "header_only": (cut(nifti("moving.nii"), 0.01), f"moving.nii: {DAMAGED}"),
    "trailing_checksum": (cut(nifti(), 0.98), f"moving.nii.gz: {DAMAGED}"),
    "huge_nifti": (nifti(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), f"30000 x 30000 x 30000 values, {LIMIT}"),
    "huge_nifti_2": (file("moving.nii.gz", big_nifti2), f"1000000 x 1000000 x 1000000 values, {LIMIT}"),
    "declares_more_than_it_holds": (file("moving.nii.gz", nifti_bomb), "512 x 512 x 512 values, which a file of"),
    "negative_dimension": (nifti(dim=[3, -20, 18, 16, 1, 1, 1, 1]), "moving.nii.gz: its header declares -20 x 18"),
    "long_extension": (file("moving.nii.gz", long_extension), "an extension of 1073741824 bytes in its header"),
    "far_voxels": (nifti(vox_offset=1e12), "its voxels start at byte"),
    "colours": (nifti(array=np.zeros(SHAPE, RGB)), "moving.nii.gz: voxels of colours, expected one"),
    "colours_nrrd": (rgb_nrrd, "an image of 3 volumes (a time series, or colours?), expected one"),
    "opaque_colours": (nifti(array=np.zeros(SHAPE, [*RGB.descr, ("A", "u1")])), "voxels of colours, expected one"),
    "bits": (nifti(datatype=1, bitpix=1), "moving.nii.gz: voxels of single bits; save them as uint8"),
    "no_type": (nifti(datatype=0), "moving.nii.gz: voxels of no known type, expected numbers"),
    "long_complex": (nifti(datatype=2048), "moving.nii.gz: voxels of complex numbers"),
    "complex": (
        nifti(array=image().astype(np.complex64)),
        "voxels of complex numbers, expected one real number",
    ),
    "unknown_type": (nifti(datatype=9999), "moving.nii.gz: the datatype 9999 in its header is none of NIfTI"),
    "nan": (nifti(array=spoilt(np.nan)), "moving.nii.gz: 1 of 5760 values are NaN or infinite"),
    "infinite": (nifti(array=spoilt(np.inf)), "moving.nii.gz: 1 of 5760 values are NaN or infinite"),
    "empty": (nifti(array=np.zeros(SHAPE, np.float32)), "moving.nii.gz: empty image"),
    "constant": (nifti(array=np.full(SHAPE, 7, np.float32)), "moving.nii.gz: constant image"),
    "planar": (nifti(array=image()[:, :, 3]), "moving.nii.gz: 20 x 18 x 1 voxels, a single slice"),
    "one_slice": (nifti(array=image()[:, :, :1]), "moving.nii.gz: 20 x 18 x 1 voxels, a single slice"),
    "time_series": (nifti(array=np.stack([image(k) for k in range(3)], -1)), "3 volumes (a time series, or colours?)"),
    "zero_spacing": (nifti(srow_y=[0, 0, 0, 0]), "expected more than 0 (singular affine)"),
    "negative_spacing": (
        nifti(pixdim=[1, 5, -5, 6, 0, 0, 0, 0], sform_code=0, qform_code=1),
        "moving.nii.gz: a spacing of 5 x -5 x 6, expected more than 0",
    ),
    "singular_affine": (nifti(srow_x=[5, 5, 0, 0], srow_y=[0, 0, 0, 0]), "singular affine, its axes lie in one plane"),
    "nan_affine": (nifti(srow_x=[np.nan, 0, 0, 0]), "the affine has NaN or infinite values"),
    "kilometres": (nifti(affine=np.diag([5e6, 5e6, 6e6, 1])), "more than 1073741824 voxels of pixdim"),
    "nanometres": (nifti(affine=np.diag([5e-6, 5e-6, 6e-6, 1])), "less than one voxel of pixdim"),
    "text_nrrd": (file("moving.nrrd", b"no image"), f"moving.nrrd: {DAMAGED}"),
    "truncated_nrrd": (cut(by_itk("moving.nrrd", compression=True)), "moving.nrrd: its voxels need 23040 bytes, and "),
    "huge_nrrd": (
        patched(by_itk("moving.nrrd"), b"sizes: 20 18 16", b"sizes: 1000000 1000000 1000000"),
        f"1000000 x 1000000 x 1000000 x 1 values, {LIMIT}",
    ),
    "flipped_nrrd": (
        flipped(by_itk("moving.nrrd", compression=True)),
        "moving.nrrd: its compressed voxels are damaged; copy it",
    ),
    "flipped_mha": (
        flipped(by_itk("moving.mha", compression=True)),
        "moving.mha: its compressed voxels are damaged; copy it",
    ),
    "flipped_mgz": (flipped(mgz), f"moving.mgz: {DAMAGED}"),
    "flipped_gz": (flipped(nifti()), f"moving.nii.gz: {DAMAGED}"),
    "zeros_in_nrrd": (
        ending_in_zeros(by_itk("moving.nrrd", compression=True)),
        "moving.nrrd: its compressed voxels are damaged; copy it",
    ),
    "zeros_in_mgz": (ending_in_zeros(mgz), f"moving.mgz: {DAMAGED}"),
    "zeros_in_gz": (ending_in_zeros(nifti()), f"moving.nii.gz: {DAMAGED}"),
    "truncated_mha": (cut(by_itk("moving.mha")), "moving.mha: its voxels need 23040 bytes, and 113"),
    "squeezed_mha": (cut(by_itk("moving.mha", compression=True)), "moving.mha: its voxels need 23040 bytes, and "),
    "huge_mha": (
        patched(by_itk("moving.mha"), b"DimSize = 20 18 16", b"DimSize = 1000000 1000000 1000000"),
        "moving.mha: ",
    ),
    "voxels_elsewhere": (
        patched(by_itk("moving.mha"), b"ElementDataFile = LOCAL", b"ElementDataFile = nowhere"),
        "moving.mha: its voxels are in nowhere, which is not there; copy it too",
    ),
    "no_series": (empty_folder, "series: cannot be read, a folder without a DICOM series"),
    "damaged_slice": (cut(dicom, 0.1, at=5), "1 of its files cannot be read, the first is 005.dcm"),
    "truncated_slice": (cut(dicom, 0.9, at=5), "1 of its files cannot be read, the first is 005.dcm"),
    "objects": (array(np.array([Malicious()], dtype=object)), "Python objects, which could run code when read"),
    "pickle": (file("moving.npy", pickle.dumps(Malicious())), "Python objects, which could run code when read"),
    "truncated_npy": (cut(array(image())), f"moving.npy: {DAMAGED}"),
    "huge_npy": (file("moving.npy", big_npy), "moving.npy: "),
    "words": (array(np.array([["a", "b"]])), "voxels of the type <U1, expected numbers"),
    "several_arrays": (lambda folder: np.savez(folder / "moving.npz", a=image()) or folder / "moving.npz", "archive"),
    "huge_picture": (file("moving.png", png_of(100000, 100000)), "10000000000 pixels, more than the"),
    "truncated_picture": (file("moving.png", png_of(200, 180)), f"moving.png: {DAMAGED}"),
    "pipe": (pipe, "moving.nii.gz: a device or a pipe, expected a file"),
    "bytes_as_name": (file(b"m\xe9\n\x1b[1m.nii.gz", b"no image"), f"m\\udce9 \\x1b[1m.nii.gz: {DAMAGED}"),
}
"""Moving images of a pair."""

SMALLER = volume(0)[1][:-2]
LABELS = {
    "label_of_another_size": (
        nifti("label.nii.gz", SMALLER),
        "label.nii.gz: the label is 18 x 18 x 16 and its image 20 x 18 x 16; give both one grid",
    ),
    "label_with_channels": (
        nifti("label.nii.gz", np.stack([volume(0)[1]] * 2, -1)),
        "fixed_label has 1 channel(s) and moving_label 2",
    ),
    "unreadable_label": (file("label.nii.gz", b"this is no label"), f"label.nii.gz: {DAMAGED}"),
    "huge_label": (nifti("label.nii.gz", dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), LIMIT),
}
MASKS = {
    "mask_of_another_size": (
        nifti("mask.nii.gz", SMALLER),
        "mask.nii.gz: the mask is 18 x 18 x 16 and its image 20 x 18 x 16",
    ),
    "empty_mask": (
        nifti("mask.nii.gz", np.zeros(SHAPE, np.uint8)),
        "mask.nii.gz: the mask is empty, every value is 0; leave it out",
    ),
    "truncated_mask": (cut(nifti("mask.nii.gz", volume(0)[1])), f"mask.nii.gz: {DAMAGED}"),
}

DEEP = b"[" * 100000 + b"]" * 100000
NO_POSITION = {"markups": [{"controlPoints": [{"id": "1", "positionStatus": "undefined"}]}]}
HUGE_VTK = b"# vtk DataFile Version 3.0\nx\nBINARY\nDATASET POLYDATA\nPOINTS 999999999999 float\n1234"
POINTS = {
    "landmarks_of_letters": (file("a.csv", b"x,y,z\n1,2,three\n"), "a.csv: expected numbers in every row"),
    "landmarks_nowhere": (file("a.csv", b"x,y,z\n1,2,nan\n"), "a.csv: point 1 is not finite"),
    "landmarks_in_cm": (
        file("a.csv", b"x (cm),y (cm),z (cm)\n1,2,3\n"),
        "a.csv: the numbers of its column x are in cm",
    ),
    "landmarks_in_pixels": (file("a.csv", b"x_px,y_px,z_px\n1,2,3\n"), "a.csv: the numbers of its column x are in px"),
    "landmarks_between_blanks": (file("a.csv", b"x y z\n1 2 3\n"), "a.csv: expected numbers in every row"),
    "no_landmarks": (file("a.csv", b""), "a.csv: expected numbers in every row"),
    "binary_landmarks": (file("a.csv", b"\xff\xfe\0\1"), "a.csv: expected numbers in every row"),
    "folder_of_landmarks": (lambda folder: (folder / "a.csv").mkdir() or folder / "a.csv", "a.csv: a folder"),
    "deep_markups": (file("a.mrk.json", DEEP), "a.mrk.json: not valid JSON"),
    "other_json": (file("a.mrk.json", b'{"markups": 3}'), 'a.mrk.json: no list "markups"'),
    "unplaced_markups": (file("a.mrk.json", json.dumps(NO_POSITION).encode()), "a.mrk.json: no points in the file"),
    "fiducials_of_nowhere": (file("a.fcsv", b"1,2,3,4\n"), "a.fcsv: no line '# CoordinateSystem = LPS'"),
}
"""Landmarks of an image of a pair, and files of points to move."""
SURFACES = {
    "huge_surface": (file("a.vtk", HUGE_VTK), "a.vtk: cut short: 999999999999 points need 11999999999988 bytes"),
    "text_surface": (file("a.vtk", b"no surface"), "a.vtk: not a legacy VTK file"),
    "huge_stl": (file("a.stl", b"\0" * 80 + b"\xff" * 4), "a.stl: not an STL file, or cut short"),
    "truncated_stl": (file("a.stl", b"solid a\nfacet normal 0 0 1\nouter loop\n"), "a.stl: cut short or damaged"),
}


def displacements(name):
    def write(folder):
        field = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
        write_transform(Transform([Displacement(field, AFFINE)]), folder / name)
        return folder / name

    return write


def affine_transform(folder):
    write_transform(Transform([AFFINE]), folder / "a.tfm")
    return folder / "a.tfm"


def matlab(rows):
    return struct.pack("<5i", 0, rows, 1, 0, 27) + b"AffineTransform_double_3_3\0" + b"\0" * 96


NUMBERS = 3 * int(np.prod(SHAPE))
TRANSFORMS = {
    "text_transform": (file("a.tfm", b"no transform"), "a.tfm: not a transform, or damaged"),
    "zero_transform": (file("a.h5", b""), "a.h5: not a transform, or damaged"),
    "text_h5": (file("a.h5", b"no transform"), "a.h5: not a transform, or damaged"),
    "truncated_h5": (cut(displacements("a.h5")), "a.h5: not a transform, or damaged"),
    "zeros_in_h5": (ending_in_zeros(displacements("a.h5")), "a.h5: not a transform, or damaged"),
    "text_of_h5_nowhere": (
        patched(displacements("a.h5"), b"GCOL\1", b"GCOL\0"),
        "a.h5: not a transform, or damaged (a text of HDF5 is not where it says); copy it again",
    ),
    "damaged_h5": (
        patched(displacements("a.h5"), 2 * struct.pack("<Q", NUMBERS), struct.pack("<QQ", NUMBERS, NUMBERS + 1)),
        "a.h5: not a transform, or damaged",
    ),
    "huge_h5": (
        patched(displacements("a.h5"), struct.pack("<Q", NUMBERS), struct.pack("<Q", 10**9)),
        "a.h5: its header declares 1000000000 values, which a file of",
    ),
    "huge_mat": (file("a.mat", matlab(2**30)), "a.mat: cut short"),
    "text_mat": (file("a.mat", b"no transform"), "a.mat: not a transform: expected matrices of MATLAB 4"),
    "huge_field": (
        nifti("a.nii.gz", dim=[5, 30000, 30000, 30000, 1, 3, 1, 1]),
        f"a.nii.gz: its header declares 30000 x 30000 x 30000 x 1 x 3 values, {LIMIT}",
    ),
    "image_as_field": (nifti("a.nii.gz"), "a.nii.gz: not a transform: 20 x 18 x 16 values"),
    "nan_field": (
        nifti("a.nii", np.full((*SHAPE, 1, 3), np.nan, np.float32), intent_code=1007),
        "a.nii: not a transform: it has NaN or infinite values",
    ),
    "scalar_nrrd": (by_itk("a.nrrd"), "a.nrrd: not a transform: 1 value(s) per voxel of "),
    "nan_transform": (
        patched(affine_transform, b"Parameters: 5", b"Parameters: nan"),
        "a.tfm: not a transform",
    ),
    "picture_as_transform": (file("a.png", png_of(3, 3)), "a.png: not a format of a transform"),
    "folder_as_transform": (lambda folder: (folder / "a.h5").mkdir() or folder / "a.h5", "a.h5: a folder"),
}


def saved(content, name="bad.pt", **options):
    def write(folder):
        torch.save(content, folder / name, **options)
        return folder / name

    return write


def compressed_weights(folder):
    path = saved({"weight": torch.zeros(3000)}, "loose.pt")(folder)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(folder / "bad.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    return folder / "bad.pt"


NOT_WEIGHTS = "bad.pt does not hold weights of this network"
WEIGHTS = {
    "weights_of_another_network": (saved({"weight": torch.zeros(3)}), NOT_WEIGHTS),
    "truncated_weights": (cut(saved({"weight": torch.zeros(3000)})), NOT_WEIGHTS),
    "text_as_weights": (file("bad.pt", b"no weights"), NOT_WEIGHTS),
    "code_as_weights": (saved(Malicious()), NOT_WEIGHTS),
    "pickle_as_weights": (file("bad.pt", pickle.dumps(Malicious())), f"{NOT_WEIGHTS} (not a file of torch.save"),
    "old_weights": (
        saved({"weight": torch.zeros(3)}, _use_new_zipfile_serialization=False),
        f"{NOT_WEIGHTS} (not a file of torch.save",
    ),
    "compressed_weights": (compressed_weights, f"{NOT_WEIGHTS} (a compressed archive"),
    "number_as_weights": (saved(3), NOT_WEIGHTS),
    "folder_as_weights": (
        lambda folder: (folder / "bad.pt").mkdir() or folder / "bad.pt",
        "bad.pt is a folder, expected a file of weights",
    ),
}

PAIR_IDS = {
    "parent": "../../outside",
    "absolute": "/tmp/outside",
    "slash": "a/b",
    "backslash": "a\\b",
    "dots": "..",
    "hidden": ".hidden",
    "control": "a\x1b[2Jb",
    "line_end": "a\n",
    "nul": "a\0b",
    "no_text": "",
    "number": 3,
    "long": "a" * 300,
    "not_ascii": "\udce9",
}
EXPECTED_ID = "expected a letter or digit, then letters, digits and . _ -"


def listed(**values):
    return {"test": [pair("F", "G", **values)]}


DATALISTS = {
    "missing_file": ({"test": [pair("F", "H")]}, "fixed_image not found: "),
    "no_moving_image": ({"test": [{"fixed_image": "images/F.nii.gz"}]}, "test[0]: no moving_image"),
    "unknown_key": (listed(fixd_label="x"), "test[0]: unknown key 'fixd_label'"),
    "two_splits": ({"training": [pair("F", "G")], "test": [pair("F", "E")]}, "patient F is in training and in test"),
    "image_as_label": (listed(moving_label="images/F.nii.gz"), "moving_label is the file of moving_image; name a"),
    "image_as_label_by_another_path": (
        listed(fixed_label="labels/../images/G.nii.gz"),
        "fixed_label is the file of fixed_image; name another, or leave it out",
    ),
    "image_as_mask": (listed(moving_mask="./images/F.nii.gz"), "moving_mask is the file of moving_image; name a"),
    "no_pairs": ({"test": []}, "no pairs"),
    "not_a_list": ({"test": {}}, "test is a dict, expected a list of entries"),
    "not_an_object": ([], "holds a list, expected an object of lists"),
    "number_as_path": (listed(moving_mask=3), "moving_mask is 3, expected the path of one file"),
    "endless_path": (listed(moving_mask="a" * 5000), "moving_mask not found"),
    "nul_in_path": (listed(moving_mask="a\0b"), "moving_mask not found"),
    "folder_of_landmarks": (listed(moving_landmarks="images"), "expected a file of points"),
    "objects_as_patient": (listed(patient=[{}]), "patient is [{}], expected a patient or a list of patients"),
    "same_id": ({"test": [pair("F", "G", pair_id="a"), pair("G", "F", pair_id="a")]}, "pair_id a belongs to 2 pairs"),
    "same_folder": ({"test": [pair("F", "G", pair_id="a"), pair("G", "F", pair_id="A")]}, "a and A are one folder"),
    "file_of_results": (listed(pair_id="metrics.csv"), "pair_id is 'metrics.csv', which the results use themselves"),
    "summary_of_results": (
        listed(pair_id="summary.csv"),
        "pair_id is 'summary.csv', which the results use themselves",
    ),
    "lock_of_results": (listed(pair_id="run.lock"), "pair_id is 'run.lock', which the results use themselves"),
    "not_json": (b"{'test': ", "is not valid JSON"),
    "not_utf_8": (b'{"test": ["\xff"]}', "image not found"),
    "deep_json": (DEEP, "is not valid JSON"),
    "zero_datalist": (b"", "is not valid JSON"),
    **{f"id_{name}": (listed(pair_id=value), EXPECTED_ID) for name, value in PAIR_IDS.items()},
}
"""Content of a datalist: as JSON, or in bytes."""


def write_datalist_case(name, path):
    content = DATALISTS[name][0]
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


PAIRS = {
    **{name: ("moving_image", *case) for name, case in IMAGES.items()},
    **{name: ("moving_label", *case) for name, case in LABELS.items()},
    **{name: ("moving_mask", *case) for name, case in MASKS.items()},
    **{name: ("moving_landmarks", *case) for name, case in POINTS.items()},
}
"""Cases of files of a pair: key of the datalist, how it is written, the words of its line."""


def write_pair(name, root):
    """Write the bad file of a pair, and return the pair's entry; its other files are those of the tiny data set."""
    key, write, _ = PAIRS[name]
    entry = pair("F", "G", pair_id=name)
    (root / name).mkdir()
    entry[key] = str(write(root / name).relative_to(root))
    if key == "moving_landmarks":
        (root / name / "fixed.csv").write_text("x,y,z\n1,2,3\n")
        entry["fixed_landmarks"] = f"{name}/fixed.csv"
    if key == "moving_image":
        del entry["fixed_label"], entry["moving_label"]
    return entry


CASES = {**PAIRS, **SURFACES, **TRANSFORMS, **WEIGHTS, **DATALISTS}
