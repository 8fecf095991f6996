"""The `features` command: what it tells of a contract, and the file it gives to start one's own from."""

from pathlib import Path

from typer.testing import CliRunner

from features import load_contract
from features.cli import app


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


def test_show_tells_currency_ranges_and_vocabularies() -> None:
    shown = run("contract", "show")
    for words in (
        "currency: every amount is in USD",
        "how many USD one of the other is worth that day",
        "[above 0, at most 10,000,000,000]",
        "[one of 0, 1]",
        "[from 1990-01-01 00:00:00, to 2099-12-31 23:59:59]",
        "channel (of channel), 2 codes: card, transfer",
        "at most 5.0% of the rows may be quarantined",
    ):
        assert words in shown


def test_export_gives_the_packaged_contract_and_keeps_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    run("contract", "export", "--out", str(path))
    assert load_contract(path).fingerprint == load_contract().fingerprint
    assert "# " in path.read_text()
    assert CliRunner().invoke(app, ["contract", "export", "--out", str(path)]).exit_code != 0
    path.write_text(path.read_text().replace("currency: USD", "currency: EUR"))
    assert "every amount is in EUR" in run("contract", "show", str(path))
