"""Legacy VTK and STL files: their points in mm, RAS, and every other byte as it was when they are written again."""

import struct

import itk
import numpy as np
import pytest

from bundle.formats import read_points

POINTS = np.array([[0.0, 0.0, 0.0], [10.5, 0.25, 0.0], [0.0, 20.125, 0.0], [0.0, 0.0, -30.5]])  # exact in binary
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
SIGNS = {"LPS": (-1, -1, 1), "RAS": (1, 1, 1)}
TITLES = {"vtk output": "LPS", "3D Slicer output. SPACE=LPS": "LPS", "3D Slicer output. SPACE=RAS": "RAS"}


def cells(version, binary):
    """Topology and data of the tetrahedron's surface, as VTK writes them."""
    faces = FACES.astype(">i4")
    if version == "5.1":
        arrays = {"OFFSETS": 3 * np.arange(len(FACES) + 1), "CONNECTIVITY": FACES}
        head = f"METADATA\nINFORMATION 0\n\nPOLYGONS {len(FACES) + 1} {FACES.size}\n".encode()
        for name, array in arrays.items():
            text = " ".join(map(str, array.ravel())).encode()
            head += f"{name} vtktypeint64\n".encode() + (array.astype(">i8").tobytes() if binary else text) + b"\n"
    else:
        rows = np.column_stack([np.full(len(faces), 3), faces]).astype(">i4")
        text = "\n".join(" ".join(map(str, row)) for row in rows).encode()
        head = f"POLYGONS {len(FACES)} {rows.size}\n".encode() + (rows.tobytes() if binary else text) + b"\n"
    scalars = np.array([1.0, 2.0, 3.0, 4.0], dtype=">f4").tobytes() if binary else b"1.0 2.5 nan 1e-7"
    return head + b"\nPOINT_DATA 4\nSCALARS distance float\nLOOKUP_TABLE default\n" + scalars + b"\n"


def vtk(version="4.2", kind="ASCII", dtype="double", title="vtk output", points=POINTS):
    """A surface; of text with the nine numbers a line that VTK writes."""
    head = (
        f"# vtk DataFile Version {version}\n{title}\n{kind}\nDATASET POLYDATA\nPOINTS {len(points)} {dtype}\n".encode()
    )
    if kind == "BINARY":
        body = points.astype({"float": ">f4", "double": ">f8"}[dtype]).tobytes() + b"\n"
    else:
        numbers = [repr(value) for value in points.ravel().tolist()]
        body = "".join(" ".join(numbers[at : at + 9]) + " \n" for at in range(0, len(numbers), 9)).encode() + b"\n"
    return head + body + cells(version, kind == "BINARY")


def normal(corners):
    cross = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    return cross / np.linalg.norm(cross)


def binary_stl(points=POINTS, header=b"solid 3D Slicer output. SPACE=LPS"):
    facets = [struct.pack("<12fH", *normal(points[face]), *points[face].ravel(), 7 + i) for i, face in enumerate(FACES)]
    return header.ljust(80, b"\0") + struct.pack("<I", len(facets)) + b"".join(facets)


def ascii_stl(points=POINTS, name="part facet vertex"):
    lines = [f"solid {name}"]
    for face in FACES:
        lines += [" facet normal " + " ".join(map(repr, normal(points[face]).tolist())), "  outer loop"]
        lines += ["   vertex " + " ".join(map(repr, points[corner].tolist())) for corner in face]
        lines += ["  endloop", " endfacet"]
    return ("\r\n".join([*lines, f"endsolid {name}"]) + "\r\n").encode()


def save(path, content):
    path.write_bytes(content)
    return path


def turned(points):
    """A quarter of a turn about z in RAS, then a shift."""
    return points @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + (1.0625, -2.5, 3e-6)


@pytest.mark.parametrize("version", ["3.0", "4.2", "5.1"])
@pytest.mark.parametrize(("kind", "dtype"), [("ASCII", "float"), ("BINARY", "float"), ("BINARY", "double")])
@pytest.mark.parametrize("title", TITLES)
def test_vtk_changes_in_its_points_only(tmp_path, version, kind, dtype, title):
    content = vtk(version, kind, dtype, title)
    file = read_points(save(tmp_path / "a.vtk", content))
    signs = SIGNS[TITLES[title]]
    np.testing.assert_array_equal(file.points, POINTS * signs)
    file.write(tmp_path / "b.vtk", file.points, np.ones(4, dtype=bool))
    assert (tmp_path / "b.vtk").read_bytes() == content
    file.write(tmp_path / "c.vtk", turned(file.points))
    assert (tmp_path / "c.vtk").read_bytes() == vtk(version, kind, dtype, title, turned(POINTS * signs) * signs)
    found = read_points(tmp_path / "c.vtk").points
    np.testing.assert_allclose(found, turned(POINTS * signs), atol=1e-12 if dtype == "double" else 1e-5)


def test_itk_finds_the_points_in_lps(tmp_path):
    content = vtk().partition(b"\nPOINT_DATA")[0] + b"\n"
    file = read_points(save(tmp_path / "a.vtk", content))
    file.write(tmp_path / "b.vtk", turned(file.points))
    mesh = itk.meshread(str(tmp_path / "b.vtk"), itk.D)
    found = np.array([list(mesh.GetPoint(number)) for number in range(mesh.GetNumberOfPoints())])
    np.testing.assert_allclose(found, turned(POINTS * (-1, -1, 1)) * (-1, -1, 1), atol=1e-6)
    assert mesh.GetNumberOfCells() == len(FACES)


def test_a_mesh_of_volumes_and_other_ends_of_lines_will_do(tmp_path):
    content = vtk().replace(b"POLYDATA", b"UNSTRUCTURED_GRID").replace(b"\n", b"\r\n").replace(b"ASCII", b"ascii")
    file = read_points(save(tmp_path / "a.vtk", content))
    np.testing.assert_array_equal(file.points, POINTS * (-1, -1, 1))
    file.write(tmp_path / "b.vtk", file.points)
    assert (tmp_path / "b.vtk").read_bytes() == content


@pytest.mark.parametrize("kind", ["ASCII", "BINARY"])
def test_normals_of_vtk_are_named_as_left_as_they_were(tmp_path, kind, recwarn):
    content = vtk(kind=kind)
    read_points(save(tmp_path / "a.vtk", content)).write(tmp_path / "b.vtk", POINTS)
    assert not recwarn
    content += b"NORMALS Normals float\n" + (12 * b"\0\0\0\0" if kind == "BINARY" else b"0 0 1 " * 4) + b"\n"
    file = read_points(save(tmp_path / "a.vtk", content))
    with pytest.warns(UserWarning, match="NORMALS of the surface are left as they were"):
        file.write(tmp_path / "b.vtk", file.points)
    assert (tmp_path / "b.vtk").read_bytes() == content


CUT = vtk(kind="BINARY").partition(b"POINTS 4 double\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a legacy VTK file, expected '# vtk DataFile Version'"),
        (b"\xff\xfe\x00", "not a legacy VTK file"),
        (
            b'<?xml version="1.0"?>\n<VTKFile type="PolyData">',
            "an XML file of VTK, which is not read; save it as legacy",
        ),
        (vtk().replace(b"POLYDATA", b"STRUCTURED_POINTS"), "its DATASET is STRUCTURED_POINTS, expected POLYDATA or"),
        (vtk().replace(b"POINTS 4", b"POINTS -4"), "no line with its points"),
        (vtk().replace(b"4 double", b"4 int"), "no line with its points, expected 'POINTS <count> float' or double"),
        (vtk().replace(b"POINTS 4", b"POINTS 5"), "5 points need 15 numbers, and 12 follow"),
        (vtk().replace(b"POINTS 4", b"POINTS 1000000000000"), "1000000000000 points need 3000000000000 numbers"),
        (vtk().replace(b"POINTS 4", b"POINTS " + b"9" * 5000), "no line with its points"),
        (vtk()[:120], "cut short: 4 points need 12 numbers, and 10 follow"),
        (vtk().replace(b"20.125", b"2o.125"), "a coordinate is not a number"),
        (vtk().replace(b"20.125", b"nan"), "point 3 is not finite"),
        (vtk().replace(b"20.125", b"-inf"), "point 3 is not finite"),
        (vtk(title="SPACE=IJK"), "coordinate system is 'IJK', expected LPS or RAS"),
        (CUT[0] + CUT[1] + CUT[2][:95], "cut short: 4 points need 96 bytes, and 95 follow"),
        (CUT[0] + b"POINTS 1000000000000 double\n" + CUT[2], "1000000000000 points need 24000000000000 bytes"),
        (vtk(points=POINTS[:0]), "no points in the file"),
    ],
)
def test_a_damaged_vtk_file_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_points(save(tmp_path / "a.vtk", content))
    assert str(caught.value).startswith(f"{tmp_path}/a.vtk: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "space", "options"),
    [
        (binary_stl, "LPS", {}),
        (binary_stl, "LPS", {"header": b"made elsewhere"}),
        (binary_stl, "RAS", {"header": b"3D Slicer output. SPACE=RAS"}),
        (ascii_stl, "LPS", {}),
        (ascii_stl, "RAS", {"name": "3D Slicer output. SPACE=RAS"}),
    ],
)
def test_stl_changes_in_its_vertices_and_normals_only(tmp_path, make, space, options):
    content, signs = make(**options), SIGNS[space]
    file = read_points(save(tmp_path / "a.stl", content))
    np.testing.assert_array_equal(file.points, POINTS[FACES].reshape(-1, 3) * signs)
    file.write(tmp_path / "b.stl", file.points, np.ones(12, dtype=bool))
    np.testing.assert_array_equal(read_points(tmp_path / "b.stl").points, file.points)
    if make is binary_stl:
        assert_same_stl((tmp_path / "b.stl").read_bytes(), content)
    file.write(tmp_path / "c.stl", turned(file.points))
    expected = make(turned(POINTS * signs) * signs, **options)
    if make is binary_stl:
        assert_same_stl((tmp_path / "c.stl").read_bytes(), expected)
    else:
        words, right = (tmp_path / "c.stl").read_bytes().split(b" "), expected.split(b" ")
        assert len(words) == len(right)
        for word, other in zip(words, right, strict=True):
            assert word == other or float(word) == pytest.approx(float(other), abs=1e-12)


def assert_same_stl(found, expected):
    """The same but for the last digit of a normal, which single precision rounds before or after."""
    assert found[:84] == expected[:84] and len(found) == len(expected)
    for at in range(84, len(found), 50):
        np.testing.assert_allclose(
            struct.unpack("<3f", found[at : at + 12]), struct.unpack("<3f", expected[at : at + 12]), atol=1e-6
        )
        assert found[at + 12 : at + 50] == expected[at + 12 : at + 50]


@pytest.mark.parametrize("make", [binary_stl, ascii_stl])
def test_vertices_of_several_facets_stay_together_and_a_mirror_turns_the_normals(tmp_path, make):
    file = read_points(save(tmp_path / "a.stl", make()))
    file.write(tmp_path / "b.stl", file.points * (1, 1, -1))
    found = read_points(tmp_path / "b.stl").points
    assert len(np.unique(found, axis=0)) == 4
    content = (tmp_path / "b.stl").read_bytes()
    if make is binary_stl:
        first = struct.unpack("<3f", content[84:96])
    else:
        first = [float(word) for word in content.split(b"normal ")[1].split()[:3]]
    # The first facet lies in the plane z = 0, so the mirror leaves it; the second one's normal is its corners'.
    np.testing.assert_allclose(first, [0, 0, -1])
    corners = found[3:6] * (-1, -1, 1)
    second = content.split(b"normal ")[2].split()[:3] if make is ascii_stl else struct.unpack("<3f", content[134:146])
    np.testing.assert_allclose(np.array(second, dtype=float), normal(corners), atol=1e-6)


def test_a_facet_without_area_has_no_normal(tmp_path):
    file = read_points(save(tmp_path / "a.stl", binary_stl()))
    file.write(tmp_path / "b.stl", np.ones((12, 3)))
    assert struct.unpack("<3f", (tmp_path / "b.stl").read_bytes()[84:96]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an STL file, or cut short: 0 bytes, expected more"),
        (b"\x00" * 84, "no points in the file"),
        (binary_stl(header=b"a")[:-1], "283 bytes, expected 284 bytes for 4 facets"),
        (binary_stl(header=b"a")[:80] + b"\xff\xff\xff\xff" + binary_stl()[84:], "for 4294967295 facets"),
        (binary_stl()[:-1], "283 bytes, expected 284 bytes for 4 facets"),
        (binary_stl(POINTS * [1, np.nan, 1], b"a"), "point 1 is not finite"),
        (binary_stl(header=b"SPACE=XYZ"), "coordinate system is 'XYZ'"),
        (ascii_stl()[:-60], "3 of 4 facets are whole"),
        (ascii_stl().rpartition(b"endsolid")[0], "4 of 4 facets are whole; .* and endsolid"),
        (ascii_stl().replace(b"vertex 10.5", b"vertex", 1), "3 of 4 facets are whole"),
        (ascii_stl().replace(b"20.125", b"twenty"), "a coordinate is not a number"),
        (ascii_stl().replace(b"20.125", b"inf"), "point 2 is not finite"),
        (b"solid a\nendsolid a\n", "no points in the file"),
    ],
)
def test_a_damaged_stl_file_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_points(save(tmp_path / "a.stl", content))
    assert "\n" not in str(caught.value)
