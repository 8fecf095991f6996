"""Records are whole lines, whatever a full disk left of the one before."""

import json
from pathlib import Path

from bank_node.files import append_record


def test_a_torn_record_is_cut_off_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "records.jsonl"
    append_record(path, '{"a": 1}')
    whole = path.read_bytes()
    for torn in (b"", b"{", b'{"b": 2}'):
        path.write_bytes(whole + torn)
        append_record(path, '{"c": "ä"}')
        assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"c": "ä"}]
