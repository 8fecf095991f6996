"""Excel workbooks as a source: the first sheet, numbers and texts, and ids that lost their digits."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from features.errors import DataError
from features.incremental import Extraction, extract_days
from features.store.partitions import FeatureStore
from tests.unit.features.ingestion.test_dirty_data import CONTRACT, KEY, NAMES, line, mapped, row

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PARTS = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default '
    'Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override '
    'PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main'
    '+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
    f'Id="r1" Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook {MAIN} xmlns:r="{OFFICE}"><sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets>'
    "</workbook>",
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    f'<Relationship Id="r1" Type="{OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
}


def written(path: Path, rows: Sequence[Sequence[str | float]]) -> Path:
    """A workbook of one sheet: texts inline, numbers as numbers."""
    cells = ""
    for number, cells_of in enumerate(rows, start=1):
        cells += f'<row r="{number}">'
        for place, value in enumerate(cells_of):
            at = f'r="{chr(65 + place)}{number}"'
            text = isinstance(value, str)
            inner = f"<is><t>{escape(str(value))}</t></is>" if text else f"<v>{value!r}</v>"
            cells += f'<c {at} t="{"inlineStr" if text else "n"}">{inner}</c>' if value != "" else ""
        cells += "</row>"
    with zipfile.ZipFile(path, "w") as workbook:
        for name, content in PARTS.items():
            workbook.writestr(name, content)
        workbook.writestr("xl/worksheets/sheet1.xml", f"<worksheet {MAIN}><sheetData>{cells}</sheetData></worksheet>")
    return path


def rows_of(count: int, **changes: str | float) -> list[list[str | float]]:
    good: list[list[str | float]] = [list(line(number).split(",")) for number in range(count)]
    for name, value in changes.items():
        good[1][NAMES.index(name)] = value
    return good


def extracted(path: Path) -> Extraction:
    done = extract_days(CONTRACT, path, FeatureStore(path.parent / "store"), key=KEY, mapping=mapped())
    assert done.rows == done.stored + done.repeated + sum(done.quarantined.values())
    return done


def test_a_sheet_with_a_title_and_numbers(tmp_path: Path) -> None:
    content = [["Payments of January"], [""], NAMES, *rows_of(3, amount=12.5, account_id=4711.0)]
    done = extracted(written(tmp_path / "payments.xlsx", content))
    assert (done.stored, done.quarantined) == (3, {})


def test_ids_of_more_digits_than_a_sheet_holds_are_set_aside(tmp_path: Path) -> None:
    done = extracted(written(tmp_path / "payments.xlsx", [NAMES, *rows_of(3, account_id=9007199254740993.0)]))
    reason = "an id in scientific notation, whose digits are lost: export it as text"
    assert (done.stored, done.quarantined) == (2, row("account_id", reason))


def test_what_is_no_workbook_is_refused(tmp_path: Path) -> None:
    (tmp_path / "payments.xlsx").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"payments\.xlsx is no whole workbook"):
        extracted(tmp_path / "payments.xlsx")
