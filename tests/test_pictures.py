"""TIFF in either order of bytes, compressed or not: as SimpleITK reads it, or named."""

import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from bundle.formats import load_image

SHORT, LONG = 3, 4
BITS, COMPRESSION, WHITE_IS, SAMPLES, ROWS, SAMPLE_FORMAT, DEPTH = 258, 259, 262, 277, 278, 339, 32997
FORMATS = {"u": 1, "i": 2, "f": 3}
PIXELS = np.arange(-90, 90).reshape(9, 20) * 157


def write_tiff(path, pixels, order=">", deflated=False, **others):
    """A TIFF of one strip, rows first; ``others`` are further tags by number."""
    stored = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    stored = zlib.compress(stored) if deflated else stored
    rows, columns = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim > 2 else 1
    tags = {256: columns, 257: rows, BITS: 8 * pixels.itemsize, COMPRESSION: 8 if deflated else 1, WHITE_IS: 1}
    tags |= {273: 8, SAMPLES: samples, ROWS: rows, 279: len(stored), SAMPLE_FORMAT: FORMATS[pixels.dtype.kind]}
    tags |= {int(number): value for number, value in others.items()}
    found = b"".join(struct.pack(f"{order}HHII", number, LONG, 1, value) for number, value in sorted(tags.items()))
    start = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8 + len(stored) + len(stored) % 2)
    path.write_bytes(
        start + stored + b"\0" * (len(stored) % 2) + struct.pack(f"{order}H", len(tags)) + found + bytes(4)
    )
    return path


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_numbers_are_those_of_simpleitk_in_either_order_of_bytes(tmp_path, dtype, order, deflated):
    """ImageJ writes big-endian files, whose 16 bits were read the wrong way round."""
    pixels = (PIXELS - PIXELS.min() * (dtype[0] == "u")).astype(dtype)
    path = write_tiff(tmp_path / "a.tif", pixels, order, deflated)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), pixels)
    np.testing.assert_array_equal(load_image(path)[0, :, :, 0].T, pixels)


@pytest.mark.parametrize(
    ("dtype", "order", "tags", "said"),
    [
        ("float64", "<", {}, "a TIFF of floating-point numbers of 64 bits, which are not read; save it as PNG"),
        ("float16", ">", {}, "a TIFF of big-endian floating-point numbers of 16 bits, which are not read"),
        ("uint32", ">", {}, "a TIFF of big-endian whole numbers of 32 bits, which are not read"),
        ("int16", "<", {str(WHITE_IS): 0}, "numbers with a sign of 16 bits where 0 is white, which are not read"),
        ("uint16", "<", {str(DEPTH): 5}, "the file holds 5 pictures, expected one"),
    ],
)
def test_kinds_of_numbers_that_are_not_read_are_named(tmp_path, dtype, order, tags, said):
    path = write_tiff(tmp_path / "a.tif", PIXELS.astype(dtype), order, **tags)
    with pytest.raises(ValueError, match=said):
        load_image(path)


def test_several_values_of_16_bits_are_named(tmp_path):
    pixels = np.stack([PIXELS, PIXELS], axis=-1).astype(np.uint16)
    path = tmp_path / "a.tif"
    write_tiff(path, pixels)
    one, both = struct.pack(">HHII", BITS, LONG, 1, 16), struct.pack(">HHIHH", BITS, SHORT, 2, 16, 16)
    path.write_bytes(path.read_bytes().replace(one, both))
    with pytest.raises(ValueError, match="a TIFF of pixels of 2 values, big-endian whole numbers of 16 bits"):
        load_image(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.97])
def test_a_tiff_that_is_cut_is_damaged(tmp_path, keep):
    path = write_tiff(tmp_path / "a.tif", PIXELS.astype(np.float64))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ValueError, match=r"a\.tif: cannot be read, damaged or not an image"):
        load_image(path)
