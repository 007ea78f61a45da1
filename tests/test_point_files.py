"""Files of points: what they mean in mm, RAS, and that nothing but the points changes when they are written again."""

import json
import warnings

import numpy as np
import pytest
from toys import apply

from bundle.data import check_data
from bundle.data.layouts import stem
from bundle.formats import POINT_FORMATS, is_point_file, pair_points, read_landmarks, read_points
from bundle.system.errors import DataWarning

AFFINE = np.array([[0.0, -2.0, 0.1, 30.0], [0.5, 0.0, 0.0, -20.0], [0.0, 0.2, 3.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
SHIFT = np.array([0.1234567, -20.0, 3e-6])
FCSV = '''# Markups fiducial file version = {version}
# CoordinateSystem = {space}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
vtkMRMLMarkupsFiducialNode_0,-19.906699999999987,13.9347,29.442970822281154,0,0,0,1,1,1,0,"a, ""b""",,node
2,1.5,-2.25,3.0,0,0,0,1,1,1,0,F-2,"seen, twice",
'''
FCSV_POINTS = np.array([[-19.906699999999987, 13.9347, 29.442970822281154], [1.5, -2.25, 3.0]])


def markups(**changes):
    """A file as 3D Slicer writes it: the second of three points was never placed."""

    def point(name, position, status="defined"):
        orientation = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0]
        return {"id": name, "label": f"F-{name}", "description": "", "position": position} | {
            "orientation": orientation,
            "positionStatus": status,
        }

    points = [point("1", [1.5, -2.0, 3.0]), point("2", "", "undefined"), point("3", [-4.0, 5.0, 6.25])]
    line = {"type": "Line", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}
    measurement = {"name": "length", "enabled": True, "value": 12.5, "units": "mm"}
    return {"@schema": "markups-schema-v1.0.3.json#", "markups": [line | {"measurements": [measurement]} | changes]}


def save(path, content):
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rewrite(path, points=None, outside=None, **options):
    """Read a file and write it again beside it, with its own points unless told otherwise."""
    affine = options.pop("affine", None)
    file = read_points(path, affine, **options)
    new = path.with_name(f"new_{path.name}")
    file.write(new, file.points if points is None else points, outside)
    return new


CSV_FILES = [
    ("x,y,z\n1,2,3\n4,5,6.125\n", {}, [[1, 2, 3], [4, 5, 6.125]]),
    ("z;,z,x, y\r\n\u00e4, 3.0,1,2\r\n\r\n'',6.125,4,5\r\n", {}, [[1, 2, 3], [4, 5, 6.125]]),
    ('\ufeffname,i,"j",k\n"a, ""b""\nc",1,2,3\nd,4, 5 ,6', {"affine": AFFINE}, [[1, 2, 3], [4, 5, 6]]),
    ("1,2,3\n4,5,6\n", {"affine": AFFINE}, [[1, 2, 3], [4, 5, 6]]),
    ("1,2,3,7\n4,5,6,8\n", {"affine": AFFINE}, [[1, 2, 3], [4, 5, 6]]),
    ('x,y,z\n"1,0","2,0","3,0",apex\n"4,0","5,0","6,125",base\n', {}, [[1, 2, 3], [4, 5, 6.125]]),
    ("R,A,S,Label\n1,2,3,F-1\n4,5,6.125,F-2\n", {}, [[1, 2, 3], [4, 5, 6.125]]),
    ("label\tl\tp\ts\tdefined\nF-1\t-1\t-2\t3\t1\nF-2\t-4\t-5\t6.125\t1\n", {}, [[1, 2, 3], [4, 5, 6.125]]),
    ("X,Y,Z\n1,2,3\n4,5,6.125\n", {}, [[1, 2, 3], [4, 5, 6.125]]),
    ("x (mm),Y [mm],z_mm\n1,2,3\n4,5,6.125\n", {}, [[1, 2, 3], [4, 5, 6.125]]),
    ("x / mm;y in mm;z (mm, RAS)\n1,5;2,0;3,0\n4,0;5,0;6,125\n", {}, [[1.5, 2, 3], [4, 5, 6.125]]),
    ("fixed_x_mm,fixed_y_mm,fixed_z_mm\n1,2,3\n", {"side": "fixed"}, [[1, 2, 3]]),
    ("i (voxel),j (px),k\n1,2,3\n", {"affine": AFFINE}, [[1, 2, 3]]),
    ("x,y,z,unit,space\n1,2,3,mm,RAS\n", {}, [[1, 2, 3]]),
    ("# a, b, c\n// d\nx;y;z\n1,5;2,0;3,0\n% e;f\n4,0;5,0;6,125\n#\n", {}, [[1.5, 2, 3], [4, 5, 6.125]]),
    ("# i,j,k\nx,y,z\n1,2,3\n", {}, [[1, 2, 3]]),
    ("# by NumPy\n# x,y,z\n# below\n1,2,3\n4,5,6.125\n", {}, [[1, 2, 3], [4, 5, 6.125]]),
    ("name,x,y,z,\napex,\u22121,2,3,\nbase,4,5,6.125,\n", {}, [[-1, 2, 3], [4, 5, 6.125]]),
    ("2,1\n5,4\n", {"affine": AFFINE, "planar": True}, [[2, 1, 0], [5, 4, 0]]),
    ("row,col\n2,1\n5,4\n", {"affine": AFFINE, "planar": True}, [[1, 2, 0], [4, 5, 0]]),
    ("fixed_i,fixed_j,moving_i,moving_j\n9,9,2,1\n", {"affine": AFFINE, "planar": True, "side": "moving"}, [[2, 1, 0]]),
]


@pytest.mark.parametrize(("text", "options", "expected"), CSV_FILES)
def test_csv_means_what_its_header_says_and_comes_back_as_it_was(tmp_path, text, options, expected):
    path = save(tmp_path / "a.csv", text)
    expected = np.array(expected, dtype=float)
    world = apply(options["affine"], expected.T).T if "affine" in options else expected
    np.testing.assert_allclose(read_points(path, **options).points, world, atol=1e-12)
    again = rewrite(path, **options).read_bytes().decode()
    # Numbers are written out: 1 becomes 1.0.
    assert again.replace(".0", "") == text.replace(".0", "").replace("\u2212", "-")


def test_moved_points_of_a_csv_keep_their_digits_and_may_belong_to_another_image(tmp_path):
    path = save(tmp_path / "a.csv", "name,i,j,k\na,1,2,3\n")
    file = read_points(path, AFFINE)
    file.write(tmp_path / "b.csv", file.points + SHIFT, affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    moved = read_points(tmp_path / "b.csv", np.diag([2.0, 2.0, 2.0, 1.0])).points
    np.testing.assert_allclose(moved, file.points + SHIFT, atol=1e-8)


def test_a_slice_keeps_its_plane_and_the_other_image_of_the_pair_its_columns(tmp_path):
    path = save(tmp_path / "a.csv", "x,y\n1,2\n")
    np.testing.assert_allclose(read_points(path, AFFINE, planar=True).points, [[1, 2, 7]])
    assert rewrite(path, np.array([[3.5, 4.5, 9]]), affine=AFFINE, planar=True).read_text() == "x,y\n3.5,4.5\n"
    path = save(tmp_path / "p.csv", "fixed_x,fixed_y,moving_x,moving_y\n1,2,3,4\n")
    new = rewrite(path, np.array([[5.5, 6.5, 0]]), [True], affine=np.eye(4), planar=True, side="moving")
    assert new.read_text() == "fixed_x,fixed_y,moving_x,moving_y,moving_outside\n1,2,5.5,6.5,1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x,y,z\n1,2,3\n\n4,5,6", "x,y,z,outside\n1.0,2.0,3.0,0\n\n4.0,5.0,6.0,1"),
        (
            "# x,y,z\n# by us\nx,y,z\n# below\n1,2,3\n4,5,6",
            "# x,y,z\n# by us\nx,y,z,outside\n# below\n1.0,2.0,3.0,0\n4.0,5.0,6.0,1",
        ),
        ("# x,y,z\n1,2,3\n4,5,6", "# x,y,z,outside\n1.0,2.0,3.0,0\n4.0,5.0,6.0,1"),
        ("x,outside,y,z\n1,1,2,3\n4,,5,6\n", "x,outside,y,z\n1.0,0,2.0,3.0\n4.0,1,5.0,6.0\n"),
        ("x,y,z\n1,2,3,note\n4,5,6\n", "x,y,z,,outside\n1.0,2.0,3.0,note,0\n4.0,5.0,6.0,,1\n"),
        ("\ufeff1,2,3\n4,5,6\n", "\ufeffi,j,k,outside\n1.0,2.0,3.0,0\n4.0,5.0,6.0,1\n"),
        ("1,2,3,a\n4,5,6,b\n", "i,j,k,,outside\n1.0,2.0,3.0,a,0\n4.0,5.0,6.0,b,1\n"),
    ],
)
def test_points_outside_are_flagged_in_a_column(tmp_path, text, expected):
    new = rewrite(save(tmp_path / "a.csv", text), None, np.array([False, True]), affine=np.eye(4))
    assert new.read_text(encoding="utf-8") == expected
    np.testing.assert_array_equal(read_points(new, np.eye(4)).points, [[1, 2, 3], [4, 5, 6]])


def test_flagged_points_of_a_slice_stay_in_it(tmp_path):
    new = rewrite(save(tmp_path / "a.csv", "1,2\n"), None, [True], affine=AFFINE, planar=True)
    assert new.read_text() == "i,j,outside\n1.0,2.0,1\n"
    np.testing.assert_allclose(read_points(new, AFFINE, planar=True).points, apply(AFFINE, np.array([[1, 2, 0.0]]).T).T)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n", "a.csv: its columns i,j,k are voxels; give the image that they belong to"),
        ("x,y,z\n1,2,3\n4,5\n", "headers i,j,k, x,y,z, r,a,s, l,p,s; row 3 is '4,5'"),
        ("x,y,z\n1,2,nan\n", "point 1 is not finite"),
        ("x,y,z\n1,2,1e999\n", "point 1 is not finite"),
        ("x:y:z\n1:2:3\n", "expected numbers in every row below one of the headers"),
        ("x,y,z,x\n1,2,3,4\n", "2 of its columns are called x, expected one"),
        ("x,y,z\n10,5,-20,25,30,5\n", "row 2 has 6 cells and the header 3; .*write decimals with a point"),
        ("x,y,z\n1_0,2,3\n", "row 2 is '1_0,2,3'"),
        ("1,12,2,3\n2,4,5,6\n", "the first of its 4 columns counts the rows; expected numbers in every row below one"),
        ("x,y,z\n", "found no such row"),
        ("x,y,z,i,j,k\n1,2,3,4,5,6\n", "its columns i,j,k and x,y,z both give the place of a point"),
        ("x (cm),y (cm),z (cm)\n1,2,3\n", "the numbers of its column x are in cm, expected mm; convert them"),
        ("x,y,z_um\n1,2,3\n", "the numbers of its column z are in um, expected mm; convert them"),
        ("x [px],y [px],z [px]\n1,2,3\n", "column x are in px, expected mm; call voxels i,j,k, counted from 0"),
        ("i (mm),j (mm),k (mm)\n1,2,3\n", "column i are in mm, expected voxels; convert them"),
        ("x (LPS),y (LPS),z (LPS)\n1,2,3\n", "column x are in lps, expected mm; call mm in LPS l,p,s and in RAS x,y,z"),
        ("x,y,z,unit\n1,2,3,mm\n4,5,6,voxel\n", "the numbers of its row 3 are in voxel, expected mm; call voxels"),
        ("x,y,z,x_mm,y_mm,z_mm\n1,2,3,4,5,6\n", "2 of its columns are called x, expected one"),
        ("x_old,y_old,z_old\n1,2,3\n", "row 1 is 'x_old,y_old,z_old'"),
        ("# in mm\n1,2,3\n", "headers i,j,k, x,y,z, r,a,s, l,p,s; it has none, and the comment '# in mm' is not read"),
        ("name,x,y,z\n#1,1,2,3\n", "row 2 is '#1,1,2,3', a comment or a row; delete it, or give it another name"),
        ("# nothing\n", "it has none, and the comment '# nothing' is not read"),
        ("0,1,2\n5,6,7\n", "its first row, 0,1,2, counts the columns; expected numbers in every row below one"),
        ("1 2 3\n4 5 6\n", "row 1 is '1 2 3', a single cell; put commas, semicolons or tabs between cells"),
        ('x,y,z\n"1,234",2.5,3\n', "some of its numbers have a decimal point and some a comma; write all with a point"),
        ('x,y,z\n"1,234",2,"-3,456"\n', "1,234 may be more than a thousand, or a fraction; write numbers without"),
        ("", "found no such row"),
        (b"x,y,z,\0\n1,2,3,\n", "not text in UTF-8, UTF-16 or Windows-1252"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_points(save(tmp_path / "a.csv", text))
    assert "\n" not in str(caught.value)


SLICER_TABLE = """label,{},defined,selected,visible,locked,description
apex,-19.9067,13.9347,29.443,1,1,1,0,
never placed,0,0,0,0,1,1,0,
base,81.7333,-42.9415,9.62559,1,1,1,0,"left, right"
"""


@pytest.mark.parametrize("text", ['x,y,z\n"1,234","0,5",3\n', "x;y;z\n1,234;0,500;3\n"])
def test_commas_that_can_only_be_decimal_are_read(tmp_path, text):
    np.testing.assert_allclose(read_points(save(tmp_path / "a.csv", text)).points, [[1.234, 0.5, 3]])


@pytest.mark.parametrize(("columns", "signs"), [("l,p,s", (-1, -1, 1)), ("r,a,s", (1, 1, 1))])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_of_control_points_says_its_space_by_its_columns_and_keeps_it(tmp_path, columns, signs, suffix):
    text = SLICER_TABLE.format(columns)
    file = read_points(save(tmp_path / f"a{suffix}", text))
    np.testing.assert_array_equal(
        file.points, np.array([[-19.9067, 13.9347, 29.443], [81.7333, -42.9415, 9.62559]]) * signs
    )
    assert file.names == ["apex", "base"] and file.unplaced == 1
    with pytest.raises(ValueError, match="1 control points have no position; place them, or delete them"):
        read_landmarks(file.path, AFFINE)
    assert rewrite(file.path).read_text() == text
    moved = rewrite(file.path, file.points + SHIFT, [False, True])
    np.testing.assert_allclose(read_points(moved).points, file.points + SHIFT, atol=1e-12)
    rows = [line.rsplit(",", 1)[1] for line in moved.read_text().splitlines()]
    assert rows == ["outside", "0", "", "1"]


def test_a_table_in_both_spaces_is_refused_and_one_of_a_pair_has_a_space_for_each_side(tmp_path):
    path = save(tmp_path / "a.csv", "r,a,s,l,p\n1,2,3,-1,-2\n")
    with pytest.raises(ValueError, match="its columns r,a,s and l,p,s both give the place of a point"):
        read_points(path)
    path = save(tmp_path / "b.csv", "fixed_r,fixed_a,fixed_s,moving_l,moving_p,moving_s\n1,2,3,4,5,6\n")
    np.testing.assert_array_equal(read_landmarks(path, AFFINE, "fixed").points, [[1, 2, 3]])
    np.testing.assert_array_equal(read_landmarks(path, AFFINE, "moving").points, [[-4, -5, 6]])


def test_two_places_in_the_plane_are_refused_and_a_depth_is_none(tmp_path):
    path = save(tmp_path / "a.csv", "x,y,row,col\n1,2,3,4\n")
    with pytest.raises(ValueError, match="its columns row,col and x,y both give the place of a point"):
        read_points(path, AFFINE, planar=True)
    path = save(tmp_path / "b.csv", "x,y,z\n1,2,3\n")
    np.testing.assert_array_equal(read_points(path, AFFINE, planar=True).points, [[1, 2, 3]])


def test_points_of_ants_are_told(tmp_path):
    path = save(tmp_path / "a.csv", "x,y,z,t,label\n1,2,3,0,1\n")
    with pytest.warns(
        DataWarning, match="a.csv: its columns x,y,z,t are those of ANTs, whose points are LPS; they are"
    ):
        np.testing.assert_array_equal(read_points(path).points, [[1, 2, 3]])


def test_a_comment_that_does_not_go_with_the_columns_is_told(tmp_path):
    for comment in ("# units: voxels", "// CoordinateSystem = LPS", "% all in cm"):
        with pytest.warns(
            DataWarning, match=f"a.csv: its points are read as mm in RAS, .*; see its comment '{comment}'"
        ):
            read_points(save(tmp_path / "a.csv", f"{comment}\nx,y,z\n1,2,3\n"))
    read_points(save(tmp_path / "a.csv", "# CoordinateSystem = LPS, units: mm\nl,p,s\n1,2,3\n"))


def test_voxels_that_a_comment_counts_from_1_are_told(tmp_path):
    for comment in ("# voxels, 1-based", "% written by MATLAB"):
        with pytest.warns(DataWarning, match=f"as voxels counted from 0, .*; see its comment '{comment}'"):
            read_points(save(tmp_path / "a.csv", f"{comment}\ni,j,k\n1,2,3\n"), AFFINE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_points(save(tmp_path / "a.csv", "# voxels, 0-based\ni,j,k\n1,2,3\n"), AFFINE)


def test_points_of_a_slice_that_are_numbered_need_a_header(tmp_path):
    with pytest.raises(ValueError, match="the first of its 3 columns counts the rows"):
        read_points(save(tmp_path / "a.csv", "1,10,20\n2,11,21\n"), AFFINE, planar=True)


@pytest.mark.parametrize(("space", "signs"), [("LPS", (-1, -1, 1)), ("RAS", (1, 1, 1)), ("0", (1, 1, 1))])
def test_markups_say_their_space_and_keep_it(tmp_path, space, signs):
    path = save(tmp_path / "a.mrk.json", markups(coordinateSystem=space))
    file = read_points(path)
    np.testing.assert_array_equal(file.points, np.array([[1.5, -2, 3], [-4, 5, 6.25]]) * signs)
    assert file.unplaced == 1
    expected = markups(coordinateSystem=space)
    del expected["markups"][0]["measurements"][0]["value"]
    assert json.loads(rewrite(path).read_text()) == expected
    moved = json.loads(rewrite(path, file.points + SHIFT).read_text())["markups"][0]["controlPoints"]
    expected = np.array([-4, 5, 6.25]) + SHIFT * signs
    np.testing.assert_allclose(moved[2]["position"], expected, atol=1e-12)


def test_markups_are_lps_unless_they_say_otherwise_and_several_keep_their_own(tmp_path):
    content = markups()
    del content["markups"][0]["coordinateSystem"]
    content["markups"] += markups(coordinateSystem="RAS")["markups"]
    points = read_points(save(tmp_path / "a.mrk.json", content)).points
    np.testing.assert_array_equal(points[:2] * (-1, -1, 1), points[2:])


def test_markups_outside_say_so_once(tmp_path):
    content = markups()
    content["markups"][0]["controlPoints"][2]["description"] = "apex"
    path = rewrite(save(tmp_path / "a.mrk.json", content), None, [False, True])
    path = rewrite(path, None, [True, True])
    points = json.loads(path.read_text())["markups"][0]["controlPoints"]
    assert [point["description"] for point in points] == ["outside the volume", "", "apex; outside the volume"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (b'{"markups": "\x81"}', "not valid JSON"),
        (b'{"markups": [], "markups": []}', "json: names 'markups' twice; keep one of them"),
        ({"training": []}, 'no list "markups"'),
        ({"markups": []}, 'no list "markups"'),
        (["markups"], 'no list "markups"'),
        ({"markups": [1]}, 'no list "markups"'),
        (markups(controlPoints={}), "controlPoints of a markup are not a list"),
        (markups(controlPoints=[]), "no points in the file"),
        (markups(controlPoints=[{"label": "F", "position": [1, 2]}]), r"control point F is \[1, 2\], expected three"),
        (markups(controlPoints=[{"position": [1, 2, "3"]}]), "expected three numbers"),
        (markups(controlPoints=[{"position": [1, 2, 10**400]}]), "expected three numbers"),
        (markups(controlPoints=[{"position": [1, 2, float("nan")]}]), "point 1 is not finite"),
        (markups(coordinateSystem="IJK"), "coordinate system is 'IJK', expected LPS or RAS"),
        (markups(coordinateUnits="um"), "coordinateUnits are 'um', expected mm"),
        (markups(type="ROI"), "a markup of type ROI"),
    ],
)
def test_damaged_markups_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_points(save(tmp_path / "a.mrk.json", content))
    assert str(caught.value).startswith(f"{tmp_path}/a.mrk.json: ")
    assert "\n" not in str(caught.value)


def test_units_may_be_a_code(tmp_path):
    path = save(tmp_path / "a.mrk.json", markups(coordinateUnits=["mm", "UCUM", "millimeter"]))
    assert len(read_points(path).points) == 2


@pytest.mark.parametrize(
    ("version", "space", "signs"),
    [
        ("4.11", "LPS", (-1, -1, 1)),
        ("4.13", "RAS", (1, 1, 1)),
        ("4.10", "0", (1, 1, 1)),
        ("4.6", "1", (-1, -1, 1)),
        ("4.11", None, (-1, -1, 1)),
        ("5.0", None, (-1, -1, 1)),
        ("4.10", None, (1, 1, 1)),
        ("4.6", None, (1, 1, 1)),
    ],
)
def test_fiducials_say_their_space_or_their_version_does(tmp_path, version, space, signs):
    text = FCSV.format(version=version, space=space).replace("# CoordinateSystem = None\n", "")
    path = save(tmp_path / "a.fcsv", text)
    file = read_points(path)
    np.testing.assert_array_equal(file.points, FCSV_POINTS * signs)
    assert rewrite(path).read_text() == text
    moved = rewrite(path, file.points + SHIFT)
    np.testing.assert_allclose(read_points(moved).points, file.points + SHIFT, atol=1e-12)


SLICER_3 = """# Fiducial List file /data/L.fcsv
# version = 2
# name = L
# numPoints = 2
# columns = label,x,y,z,sel,vis
left ear,-19.5,13.25,29.5,1,1
nose,1.5,-2.25,3.0,1,1
"""


@pytest.mark.parametrize("dropped", ["# columns", "# Fiducial", "none"])
def test_fiducials_of_slicer_3_are_ras_and_begin_with_their_names(tmp_path, dropped):
    text = "".join(line for line in SLICER_3.splitlines(keepends=True) if not line.startswith(dropped))
    file = read_points(save(tmp_path / "a.fcsv", text))
    np.testing.assert_array_equal(file.points, [[-19.5, 13.25, 29.5], [1.5, -2.25, 3]])
    assert file.names == ["left ear", "nose"]
    assert rewrite(file.path).read_text() == text


def test_fiducials_of_other_programs_have_their_label_where_their_columns_say(tmp_path):
    text = "# Markups fiducial file version = 4.11\n# CoordinateSystem = 0\n# columns = label,x,y,z,sel,vis,lock\n"
    file = read_points(save(tmp_path / "a.fcsv", text + "F_1,1,2,3,1,1,0\nF_2,4,5,6,1,1,0\n"))
    np.testing.assert_array_equal(file.points, [[1, 2, 3], [4, 5, 6]])
    assert file.names == ["F_1", "F_2"]


def test_fiducials_outside_say_so(tmp_path):
    text = FCSV.format(version="4.11", space="LPS").replace("\n", "\r\n")
    path = save(tmp_path / "a.fcsv", text + "3,1.0,2.0,3.0\r\n")
    expected = text.replace('""",,node', '""",outside the volume,node').replace("twice", "twice; outside the volume")
    expected += "3,1.0,2.0,3.0,,,,,,,,,outside the volume\r\n"
    assert rewrite(path, None, [True] * 3).read_bytes().decode() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line '# CoordinateSystem = LPS'"),
        ("F,1,2,3,1,1\n", "no line '# CoordinateSystem = LPS'"),
        (FCSV.format(version="4.6", space="2"), "coordinate system is '2', expected LPS or RAS"),
        ("# CoordinateSystem = LPS\n# columns = label,sel,x,y,z\n", "columns are label,sel,x,y,z, expected id,x,y,z"),
        ("# CoordinateSystem = LPS\n", "no points in the file"),
        ("# CoordinateSystem = LPS\n0,1,2\n", "line 2 is '0,1,2', expected id,x,y,z"),
        ("# CoordinateSystem = LPS\n0,1,2,b\n", "line 2 is '0,1,2,b', expected id,x,y,z"),
        ("# CoordinateSystem = LPS\n0,1,2,inf\n", "point 1 is not finite"),
        (b"# CoordinateSystem = LPS\n0,1,2,3,\x81\n", "not text in UTF-8"),
    ],
)
def test_damaged_fiducials_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_points(save(tmp_path / "a.fcsv", text))


def test_files_of_points_are_told_by_their_name(tmp_path):
    assert POINT_FORMATS == (".csv", ".tsv", ".mrk.json", ".fcsv", ".vtk", ".stl")
    assert all(is_point_file(f"a/b.1{suffix.upper()}") for suffix in POINT_FORMATS)
    for name in ("a.json", "a.txt", "a.ply", "a.obj", "a.nii.gz", "csv", "a.vtp"):
        assert not is_point_file(name)
        supported = (
            r"supported are CSV \(.csv, .tsv\), 3D Slicer markups \(.mrk.json, .fcsv\), legacy VTK \(.vtk\) and STL"
        )
        with pytest.raises(ValueError, match=supported):
            read_points(tmp_path / name)
    with pytest.raises(ValueError, match="an XML file of VTK, which is not read; save it as legacy VTK"):
        read_points(tmp_path / "a.vtp")
    with pytest.raises(FileNotFoundError):
        read_points(tmp_path / "a.csv")


def test_points_that_do_not_fit_are_not_written(tmp_path):
    file = read_points(save(tmp_path / "a.csv", "x,y,z\n1,2,3\n"))
    new = tmp_path / "b.csv"
    for points, outside in ((np.zeros((2, 3)), None), (np.zeros((1, 3)), [True, False])):
        with pytest.raises(ValueError, match=r"expected \(1, 3\) and \(1,\)"):
            file.write(new, points, outside)
    with pytest.raises(ValueError, match="point 1 is not finite"):
        file.write(new, np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="expected a name that ends in .csv"):
        file.write(tmp_path / "b.fcsv", file.points)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_landmarks_are_points_of_3d_slicer_too_if_every_one_is_placed(tmp_path):
    content = markups()
    path = save(tmp_path / "a.mrk.json", content)
    with pytest.raises(ValueError, match="1 control points have no position"):
        read_landmarks(path, AFFINE)
    del content["markups"][0]["controlPoints"][1]
    save(path, content)
    np.testing.assert_array_equal(read_landmarks(path, AFFINE).points, [[-1.5, 2, 3], [4, -5, 6.25]])
    with pytest.raises(ValueError, match="one file for both images of a pair is a CSV"):
        read_landmarks(path, AFFINE, side="fixed")
    fiducials = save(tmp_path / "a.fcsv", FCSV.format(version="4.11", space="LPS"))
    np.testing.assert_array_equal(read_landmarks(fiducials, AFFINE).points, FCSV_POINTS * (-1, -1, 1))
    with pytest.raises(ValueError, match="not a file of landmarks, expected .csv, .tsv, .mrk.json, .fcsv"):
        read_landmarks(tmp_path / "a.stl", AFFINE)


def test_landmarks_of_3d_slicer_are_found_in_folders_and_others_refused_in_a_datalist(tmp_path):
    assert stem("landmarks/case.1.mrk.json") == "case.1" and stem("a.FCSV") == "a"
    files = ("fixed_images/a.nii", "moving_images/a.nii", "fixed_landmarks/a.mrk.json", "moving_landmarks/a.fcsv")
    for name in files:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    pair = check_data(tmp_path, pairing="paired", fractions=(0, 0, 1)).sections["test"][0]
    assert pair["fixed_landmarks"] == str(tmp_path / files[2])
    assert pair["moving_landmarks"] == str(tmp_path / files[3])
    entry = {"fixed_image": files[0], "moving_image": files[1], "moving_landmarks": files[3]}
    save(tmp_path / "list.json", {"test": [entry | {"fixed_landmarks": "a.json"}]})
    problems = check_data(tmp_path, "list.json").problems
    assert "test[0]: fixed_landmarks is 'a.json', expected a file of points (.csv, .tsv, .mrk.json, .fcsv)" in problems


NAMED = {
    "a.csv": "name,x,y,z\n{}\n",
    "a.fcsv": "# CoordinateSystem = RAS\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc\n{}\n",
    "a.mrk.json": None,
}


def save_named(path, names, points):
    """A file of points with these names."""
    if path.name.endswith(".json"):
        found = [{"label": name, "position": point} for name, point in zip(names, points, strict=True)]
        return save(path, markups(coordinateSystem="RAS", controlPoints=found))
    row = "{0},{1},{2},{3}" if path.suffix == ".csv" else "7,{1},{2},{3},0,0,0,1,1,1,0,{0},,"
    lines = "\n".join(row.format(name, *point) for name, point in zip(names, points, strict=True))
    return save(path, NAMED[path.name].format(lines))


@pytest.mark.parametrize("fixed", NAMED)
@pytest.mark.parametrize("moving", NAMED)
def test_points_of_two_files_correspond_by_name_in_every_format(tmp_path, fixed, moving):
    for side in ("fixed", "moving"):
        (tmp_path / side).mkdir()
    data = {
        "fixed_landmarks": save_named(tmp_path / "fixed" / fixed, "ABC", [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        "moving_landmarks": save_named(tmp_path / "moving" / moving, "CAB", [[30, 0, 0], [10, 0, 0], [20, 0, 0]]),
    }
    grids = {side: ((9, 9, 9), np.eye(4)) for side in ("fixed", "moving")}
    names, first, second = pair_points(data, grids)
    assert names == ["point A", "point B", "point C"]
    np.testing.assert_array_equal(first, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    np.testing.assert_array_equal(second, [[10, 0, 0], [20, 0, 0], [30, 0, 0]])
    save_named(tmp_path / "moving" / moving, "ABD", [[30, 0, 0], [10, 0, 0], [20, 0, 0]])
    with pytest.raises(ValueError, match=f"{moving}: landmark 3 is 'D' here and 'C' in the fixed image"):
        pair_points(data, grids)
    save_named(tmp_path / "moving" / moving, "AB", [[30, 0, 0], [10, 0, 0]])
    with pytest.raises(ValueError, match=f"{moving}: 3 fixed and 2 moving landmarks; rows must correspond"):
        pair_points(data, grids)
    save_named(tmp_path / "fixed" / fixed, ["F-1", "F-2"], [[1, 2, 3], [4, 5, 6]])
    save_named(tmp_path / "moving" / moving, ["F-2", "F-1"], [[30, 0, 0], [10, 0, 0]])
    with pytest.warns(DataWarning, match=f"{moving}: landmark 1 is 'F-2' here and 'F-1' in the fixed image, numbers"):
        names, _, second = pair_points(data, grids)
    assert names == ["point F-1", "point F-2"]
    np.testing.assert_array_equal(second, [[30, 0, 0], [10, 0, 0]])


@pytest.mark.parametrize(
    ("text", "side", "names"),
    [
        ("x,y,z\n1,2,3\n4,5,6\n", None, ["", ""]),
        ("1,2,3,a\n4,5,6,b\n", None, ["", ""]),
        ("id,x,y,z,Name\n1,1,2,3,apex\n2,4,5,6,base\n", None, ["apex", "base"]),
        ("label,id,x,y,z\ngland,7,1,2,3\ngland,8,4,5,6\n", None, ["7", "8"]),
        ('x,y,z,name\n1,2,3\n4,5,6,"the\nbase "\n', None, ["", "the base"]),
        ("x,y,z,label\n1,2,3,gland\n4,5,6,gland\n", None, ["", ""]),
        ("x,y,z,label\n1,2,3,gland\n", None, ["gland"]),
        # The rows of a file for both images correspond, whatever points are called in each.
        ("name,fixed_name,fixed_x,fixed_y,fixed_z\na,c,1,2,3\nb,d,4,5,6\n", "fixed", ["a", "b"]),
        ("fixed_id,fixed_x,fixed_y,fixed_z\n4,1,2,3\n5,4,5,6\n", "fixed", ["", ""]),
    ],
)
def test_names_of_a_csv_are_those_of_the_column_that_tells_most_points_apart(tmp_path, text, side, names):
    assert read_points(save(tmp_path / "a.csv", text), AFFINE, side).names == names


def test_points_of_a_surface_have_no_names(tmp_path):
    content = "# vtk DataFile Version 3.0\nx\nASCII\nDATASET POLYDATA\nPOINTS 2 float\n1 2 3 4 5 6\n"
    assert read_points(save(tmp_path / "a.vtk", content)).names == ["", ""]


@pytest.mark.parametrize(("names", "found"), [("BB", ["point 0", "point 1"]), (["", "b"], ["point 0", "point 1"])])
def test_names_that_do_not_tell_all_points_apart_are_not_shown(tmp_path, names, found):
    data = {"fixed_landmarks": save_named(tmp_path / "a.csv", names, [[1, 2, 3], [4, 5, 6]])}
    data["moving_landmarks"] = data["fixed_landmarks"]
    assert pair_points(data, {side: ((9, 9, 9), np.eye(4)) for side in ("fixed", "moving")})[0] == found
