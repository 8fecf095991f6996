"""Opening a run over real gRPC: what no bank could read, the node does not open; what looks odd it tells."""

from dataclasses import replace

import grpc
import pytest

from aggregator.operator.client import OperatorClient
from aggregator.runs.opening import oddities
from bank_node import pipeline
from bank_node.transport.client import BankClient
from features import load_contract
from protocol import codec
from protocol import crossbank_pb2_grpc as rpc
from protocol.channel import open_channel
from protocol.errors import PlanError, SubmissionRefused
from protocol.he_parameters import HE_FINGERPRINT
from protocol.messages import JoinRequest, RunSettings
from protocol.run_plan import announced_plan
from simulator.harness.processes import operator_files
from tests.conftest import BANKS, FINGERPRINT, Node
from tests.integration.test_contracts import configure

CONTRACT = load_contract()

WRONG = [
    '{"params": {"n_estimators": 1000000000}}',
    '{"params": {"max_depth": 30}}',
    '{"params": {"max_bin": 4000}}',
    '{"params": {"max_dept": 3}}',
    '{"tuning": {"sets": [{}, {}], "rungs": [1000000000]}}',
    '{"tuning": {"sets": [{}, {"max_depth": 30}], "rungs": [2]}}',
    '{"train_until": "soon"}',
    '{"colour": "red"}',
    "[]",
    "no JSON",
    '{"params": {"n_estimators": 4}}',
]


@pytest.mark.parametrize("text", WRONG)
def test_a_plan_that_no_bank_can_read_is_refused_in_the_bank_s_words(node: Node, text: str) -> None:
    settings = node.settings(parameters_json=text, rounds=2)
    with pytest.raises(PlanError) as bank:
        announced_plan(settings)
    with node.operator() as client, pytest.raises(SubmissionRefused) as operator:
        client.open_run(settings)
    assert str(operator.value) == str(bank.value)
    # Not by our own client either: whatever opens the run, the node looks at its plan.
    with open_channel(node.address, operator_files(node.certificates)) as channel:
        with pytest.raises(grpc.RpcError) as raw:
            rpc.ConsortiumStub(channel).OpenRun(codec.settings_to_pb(settings), timeout=20)
        assert raw.value.code() is grpc.StatusCode.INVALID_ARGUMENT and raw.value.details() == str(bank.value)
    assert node.server.coordinator.runs() == []


def _join(client: BankClient, run_id: str, fingerprint: str = FINGERPRINT) -> None:
    client.join(
        JoinRequest(run_id=run_id, bank=client.bank, contract_fingerprint=fingerprint, he_fingerprint=HE_FINGERPRINT)
    )


def _warnings(client: OperatorClient, settings: RunSettings) -> list[str]:
    found = client.get_run(client.open_run(settings)).warnings
    return [text.removeprefix("warning: ") for text in found]


def test_a_bank_never_seen_and_a_contract_never_used_are_told(node: Node) -> None:
    with node.operator() as operator:
        settings = node.settings()
        assert _warnings(operator, settings) == [], "nobody has joined: nothing to compare with"
        first = operator.open_run(settings)
        for bank in BANKS:
            client = node.client(bank)
            _join(client, first)
            client.close()
        assert _warnings(operator, settings) == []
        misspelt = replace(settings, roster=("alder_bank", "brich_bank", "cedar_bank"))
        assert _warnings(operator, misspelt) == [
            "bank brich_bank has never joined a run of this node; did you mean birch_bank?"
        ]
        other = _warnings(operator, replace(settings, contract_fingerprint="cd" * 32))
        assert other[0] == "no bank has joined a run of data contract cdcdcdcdcdcd before"
        assert other[1:] == [
            f"bank {bank} last joined with data contract abababababab, not cdcdcdcdcdcd" for bank in BANKS
        ]


def test_the_newest_contract_of_a_bank_counts(node: Node) -> None:
    class Earlier:
        def __init__(self, created_at: float, joined: list[str], fingerprint: str) -> None:
            self.created_at, self.joined = created_at, joined
            self.settings = node.settings(contract_fingerprint=fingerprint)

    old, new = Earlier(1.0, BANKS, "ab" * 32), Earlier(2.0, BANKS[:2], "cd" * 32)
    for order in ([old, new], [new, old]):
        assert oddities(node.settings(contract_fingerprint="cd" * 32), order) == [
            "bank cedar_bank last joined with data contract abababababab, not cdcdcdcdcdcd"
        ]


def test_a_bank_refuses_before_it_joins_what_a_node_should_not_have_opened(node: Node) -> None:
    config = configure(node, BANKS[0], node.folder / "no payments", "data")
    run_id = node.open(contract_fingerprint=CONTRACT.fingerprint)
    for text in WRONG:
        # A node that does not check, or lies.
        lie = node.settings(contract_fingerprint=CONTRACT.fingerprint, parameters_json=text, rounds=2)
        with pytest.raises(PlanError) as told:
            announced_plan(lie)
        for step in (pipeline.gate, pipeline.train):
            # The bank declines, and the node then has another value in the run's place.
            node.server.coordinator._runs[run_id].settings = lie
            with pytest.raises(PlanError) as bank:
                step(config, run_id, log=lambda _: None)
            assert str(bank.value) == str(told.value)
    run = node.server.coordinator._runs[run_id]
    assert run.joined == [] and run.declined == {BANKS[0]}
