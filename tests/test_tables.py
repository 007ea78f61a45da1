"""Tables and JSON in the encodings and dialects of people's editors; the oracle of CSV is Python's own writer."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_places import LONGER
from workflow_fixtures import ROOT

from bundle.data import read_datalist
from bundle.formats import read_points
from bundle.formats.csv_points import read_csv, replace_csv
from bundle.formats.tables import Table, delimiter_of, value_of
from bundle.system.text import decode, load_json

NOTEPAD = {"utf-8": b"", "utf-8-sig": b"", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff", "cp1252": b""}
"""What Notepad, Excel and PowerShell write, with the byte order mark that Python's codec leaves out."""


def as_saved(text, encoding):
    return NOTEPAD[encoding] + text.encode(encoding)


@pytest.mark.parametrize("encoding", NOTEPAD)
def test_text_is_read_in_any_encoding_and_written_in_it_again(encoding):
    content = as_saved("Müller;Ödön\r\n", encoding)
    text, found = decode(content)
    assert text.removeprefix("\ufeff") == "Müller;Ödön\r\n"
    assert text.encode(found) == content
    assert load_json(as_saved('{"ä": [1]}', encoding)) == {"ä": [1]}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_may_lack_its_mark(encoding):
    content = '{"ä": ["Ödön"]}'.encode(encoding)
    assert load_json(content) == {"ä": ["Ödön"]}
    assert decode(content)[1] == encoding


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0", b"\x1f\x8b\x08\0", b"\xff\xfea", bytes(range(256))])
def test_what_is_no_text_is_refused(content):
    with pytest.raises(ValueError, match="not text in UTF-8, UTF-16 or Windows-1252"):
        decode(content)


@pytest.fixture
def folder(tmp_path):
    """A data set whose patients and structures are named in German."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for name in "ABCD":
            (tmp_path / kind / f"{name}ü.nii.gz").touch()
    return tmp_path


@pytest.mark.parametrize("encoding", NOTEPAD)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_data_set_is_read_in_any_encoding(folder, encoding, delimiter):
    entries = [{"fixed_image": f"images/{f}ü.nii.gz", "moving_image": f"images/{m}ü.nii.gz"} for f, m in ("AB", "CD")]
    labelled = [
        {**entry, **{key.replace("image", "label"): value.replace("image", "label") for key, value in entry.items()}}
        for entry in entries
    ]
    text = json.dumps({"test": labelled}, ensure_ascii=False, indent=1).replace("\n", "\r\n")
    (folder / "list.json").write_bytes(as_saved(text, encoding))
    structures = json.dumps({"default": {"Drüse": 1}}, ensure_ascii=False)
    (folder / "structures.json").write_bytes(as_saved(structures, encoding))
    rows = [("image", "patient"), *((f"{name}ü", f"Jürgen, der {name}.") for name in "ABCD")]
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    (folder / "patients.csv").write_bytes(as_saved(stream.getvalue(), encoding))
    (first, second) = read_datalist(folder, "list.json")["test"]
    assert first["patient"] == ("Jürgen, der B.", "Jürgen, der A.")
    assert second["fixed_structures"] == {"Drüse": 1}


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("x,y,z\n1,2,3", ","),
        ("x;y;z\n1,5;2;3", ";"),
        ("x\ty\tz\n1\t2\t3", "\t"),
        ("1,5;2,5;3,5\n", ";"),
        ("1,5\t2,5\t3,5\n", "\t"),
        ("1.5e3,2,3\n", ","),
        ('"1,5";"2,5";"3"\n', ";"),
        ("sep=;\r\n1;2;3", ";"),
        ("\ufeffi;j;k", ";"),
        ("1", ","),
        ("0,5;0,5;1;note", ";"),
        ("1,2,3,note; 4", ","),
        ("name, or note;x;y;z", ";"),
        ("", ","),
    ],
)
def test_the_delimiter_is_told_from_the_first_line(text, delimiter):
    assert delimiter_of(text) == delimiter


CELLS = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"], exclude_characters="\ufeff"), max_size=6
)
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@settings(max_examples=60 * LONGER, deadline=None)
@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, CELLS), min_size=1, max_size=5),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
    st.booleans(),
)
def test_points_of_every_dialect_are_read_and_replaced(points, delimiter, encoding, end, quoting, header, comma):
    """Whatever a spreadsheet writes: the numbers are read, and moved in place, and all else stays to the byte."""

    def written(points):
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)
        writer.writerows([("x", "y", "z", "name")] * header)
        for *numbers, name in points:
            texts = [repr(number) for number in numbers]
            writer.writerow(
                [*([text.replace(".", ",") for text in texts] if comma and delimiter != "," else texts), name]
            )
        return as_saved(stream.getvalue(), encoding)

    content = written(points)
    numbers = np.array([point[:3] for point in points])
    found = read_csv(content, np.eye(4), None, False).points
    np.testing.assert_array_equal(found, numbers)
    table = Table.read(content)
    assert table.content() == content
    rows = csv.reader(io.StringIO(decode(content)[0].removeprefix("\ufeff"), newline=""), delimiter=delimiter)
    assert [[value_of(cell) for cell in cells] for cells, _ in table.rows if cells != [""]] == [
        [cell.strip() for cell in row] for row in rows
    ]
    moved = replace_csv(content, found + 1, np.ones(len(points), dtype=bool), np.eye(4), None, False)
    again = Table.read(moved)
    assert (again.delimiter, again.encoding) == (table.delimiter, table.encoding)
    np.testing.assert_allclose(read_csv(moved, np.eye(4), None, False).points, numbers + 1, rtol=1e-12, atol=1e-8)
    assert value_of(again.rows[-1][0][4] if again.rows[-1][0] != [""] else again.rows[-2][0][4]) == "1"


@pytest.mark.parametrize("mark", ["|", "^", "*", "\\"])
def test_any_delimiter_that_the_file_names_separates_cells(tmp_path, mark):
    text = f"sep={mark}\nx;y;z;name\n1,5;-2;3;a\n".replace(";", mark)
    (tmp_path / "p.csv").write_text(text)
    file = read_points(tmp_path / "p.csv")
    np.testing.assert_array_equal(file.points, [[1.5, -2, 3]])
    file.write(tmp_path / "q.csv", file.points + 1)
    assert (tmp_path / "q.csv").read_text() == text.replace(f"1,5{mark}-2{mark}3", f"2,5{mark}-1,0{mark}4,0")


def test_points_as_a_german_spreadsheet_writes_them(tmp_path):
    (tmp_path / "p.csv").write_bytes("sep=;\r\nName;x;y;z\r\nGefäß;1,5;-2,25;3\r\n".encode("cp1252"))
    points = read_points(tmp_path / "p.csv")
    np.testing.assert_array_equal(points.points, [[1.5, -2.25, 3.0]])
    points.write(tmp_path / "q.csv", points.points + 0.5, np.array([True]))
    assert (tmp_path / "q.csv").read_bytes().decode("cp1252") == (
        "sep=;\r\nName;x;y;z;outside\r\nGefäß;2,0;-1,75;3,5;1\r\n"
    )


def test_a_user_without_a_name_can_import_what_imports_monai(tmp_path):
    """docker run --user 54321: MONAI asks for the name of the user when it is imported."""
    program = (
        "import os, pwd\n"
        "os.getuid = lambda: 54321\n"
        "def nobody(uid): raise KeyError(f'getpwuid(): uid not found: {uid}')\n"
        "pwd.getpwuid = nobody\n"
        "import bundle, getpass\n"
        "print(getpass.getuser())"
    )
    names = ("USER", "LOGNAME", "USERNAME", "LNAME")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "uid54321"
    named = subprocess.run(command, cwd=ROOT, env={**environment, "USER": "anyone"}, capture_output=True, text=True)
    assert named.stdout.strip() == "anyone"


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_points_of_any_dialect_are_read_or_refused(random, count):
    """Delimiters, decimal marks, units in names, comments, blank lines, indices, line ends and encodings at random."""
    points = np.round([[random.uniform(-99, 99) for _ in range(3)] for _ in range(count)], 3)
    delimiter = random.choice(",;\t")
    mark = random.choice(".," if delimiter != "," else ".")
    order = random.sample(range(3), 3)
    unit = random.choice(["", " (mm)", " [mm]", "_mm", " / mm"])
    rows = [["xyz"[axis] + unit for axis in order]]
    rows += [[f"{point[axis]:.3f}".replace(".", mark) for axis in order] for point in points]
    extra = random.choice([[], [random.choice(["name", "index", ""]), *(f"a{number}" for number in range(count))]])
    rows = [[*extra[number : number + 1], *row, *random.choice([[], [""]])] for number, row in enumerate(rows)]
    comments = random.choice(["# ", "// ", "%"])
    lines = [f"{comments}{random.choice(['by us', '3,5; 2', 'in mm'])}"] * random.randint(0, 2)
    for number, row in enumerate(rows):
        lines += [("# " if number == 0 and random.random() < 0.2 else "") + delimiter.join(row)]
        lines += random.choice([[], [], [""], [f"{comments}note"]])
    encoding = random.choice([*NOTEPAD])
    content = as_saved(random.choice(["\n", "\r\n", "\r"]).join(lines), encoding)
    np.testing.assert_allclose(read_csv(content, None, None, False).points, points, atol=1e-9)
