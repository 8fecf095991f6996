"""The node's audit log can't lose its end unseen: banks sign what they were told of it, and both sides compare."""

import subprocess
import sys

import pytest
import yaml
from sqlalchemy import create_engine, text

from aggregator.persistence.audit import AuditKind, AuditLog
from aggregator.persistence.store import Store
from bank_node.secure_aggregation.ledger_audit import verify_run
from tests.conftest import BANKS, FINGERPRINT, Node, in_parallel

WHAT = "the node's audit log only grew"


def _keyed(node: Node) -> str:
    """A run whose banks have signed their first report, after something was refused."""
    node.server.audit.record(AuditKind.ACTION_REFUSED, identity="dune_bank", detail="something to hide")
    run_id = node.open()

    def enter(bank: str) -> None:
        session = node.session(bank, run_id)
        session.join(FINGERPRINT)
        session.exchange_keys()

    in_parallel(BANKS, enter)
    return run_id


def _finding(node: Node, run_id: str, bank: str = BANKS[0], *, ask: bool = True) -> tuple[int, str]:
    client = node.client(bank)
    folder = node.folder / bank / run_id
    findings = verify_run(folder, run_id, bank, node.certificates / "ca.pem", client.audit_digest if ask else None)
    client.close()
    (found,) = [f for f in findings if f.what == WHAT]
    assert not any(f.wrong for f in findings if f.what != WHAT)
    return found.count, found.wrong


def _anchored(node: Node) -> str:
    store = Store(f"sqlite:///{node.folder / 'aggregator.db'}")
    heads = store.audit_heads()
    assert len(heads) == len(BANKS)
    return AuditLog(store.engine).anchored(heads)


def _sql(node: Node, statement: str) -> None:
    engine = create_engine(f"sqlite:///{node.folder / 'aggregator.db'}")
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_log_that_only_grew_holds(node: Node) -> None:
    run_id = _keyed(node)
    node.server.audit.record(AuditKind.ACTION_REFUSED, identity="dune_bank", detail="later")
    assert _finding(node, run_id) == (len(BANKS), "")
    assert _anchored(node) == ""


@pytest.mark.parametrize("bank", BANKS)
def test_an_end_that_was_cut_off_is_found_by_the_node_s_auditor_and_by_every_bank(node: Node, bank: str) -> None:
    run_id = _keyed(node)
    _sql(node, "DELETE FROM audit WHERE detail = 'something to hide' OR seq > 1")
    log = AuditLog(Store(f"sqlite:///{node.folder / 'aggregator.db'}").engine)
    # Its own chain does not show it.
    assert log.verify()[1] == ""
    assert "its end cut off" in _anchored(node)
    assert "its end cut off" in _finding(node, run_id, bank)[1]
    # New records where the old ones were don't hide it either.
    for _ in range(5):
        log.record(AuditKind.ACTION_REFUSED, identity="elm_bank", detail="harmless")
    assert log.verify()[1] == ""
    assert "its end cut off" in _anchored(node) and "its end cut off" in _finding(node, run_id, bank)[1]


def test_a_node_that_tells_banks_different_ends_is_found_without_asking_it(node: Node) -> None:
    """Each bank keeps what all have signed."""
    run_id, heads = "", iter(["aa" * 32, "bb" * 32] * 200)
    node.server.audit.head = lambda: (7, next(heads))  # type: ignore[method-assign]
    run_id = _keyed(node)
    wrongs = {_finding(node, run_id, bank, ask=False)[1] for bank in BANKS}
    assert all("told banks different things of its first 7 records" in wrong for wrong in wrongs)


@pytest.mark.slow
def test_the_commands_compare_and_end_with_1(node: Node) -> None:
    run_id = _keyed(node)
    aggregator, bank = node.folder / "aggregator.yaml", node.folder / "bank.yaml"
    files = {"ca": "certificates/ca.pem"}
    aggregator.write_text(
        yaml.safe_dump(
            files
            | {
                "certificate": "certificates/aggregator.pem",
                "key": "certificates/aggregator.key",
                "store": "sqlite:///aggregator.db",
            }
        )
    )
    work = node.folder / "work" / "runs"
    work.mkdir(parents=True)
    (work / run_id).symlink_to(node.folder / BANKS[0] / run_id)
    own = {"certificate": f"certificates/{BANKS[0]}.pem", "key": f"certificates/{BANKS[0]}.key"}
    bank.write_text(
        yaml.safe_dump(
            {
                "bank_id": BANKS[0],
                "events": "events",
                "work_dir": "work",
                "aggregator": files | own | {"address": node.address},
            }
        )
    )

    def run(*arguments: object) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    audit = ("aggregator", "audit", "--config", aggregator, "--verify")
    verify = ("bank_node", "verify", "--config", bank, "--run", run_id)
    code, told = run(*audit)
    assert code == 0 and f"{len(BANKS)} ends of it that banks signed: it holds them all" in told
    code, told = run(*verify)
    assert code == 0 and "NOT compared" not in told
    _sql(node, "DELETE FROM audit WHERE seq > 0")
    assert run(*audit)[0] == 1 and run(*verify)[0] == 1
    node.server.stop()
    code, told = run(*verify)
    assert code == 0 and "NOT compared" in told
