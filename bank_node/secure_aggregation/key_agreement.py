"""Fetches the other banks' keys and the run's HE key, waiting for both. What they must satisfy, `key_exchange` checks.

See docs/protocol.md, section 4.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from bank_node.secure_aggregation.agreed_state import Peers, Roster
from bank_node.secure_aggregation.key_exchange import announce, check_announcements, make_bundle, open_bundle
from bank_node.secure_aggregation.keys import RunSecrets
from bank_node.secure_aggregation.run_watch import RunWatch
from bank_node.transport.client import BankClient
from bank_node.transport.identity import Identity
from protocol.errors import ProtocolViolation
from protocol.messages import KeyAnnouncement, KeyBundle

__all__ = ["AgreedKeys", "agree_on_keys"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreedKeys:
    """What the key exchange ends with, beside what it put into our `RunSecrets`.

    Attributes:
        announced: each member's signed keys.
        peers: what they give.
        public_context: the public HE context, the same at all banks.
    """

    announced: Sequence[KeyAnnouncement]
    peers: Peers
    public_context: bytes


def agree_on_keys(
    roster: Roster, secrets: RunSecrets, identity: Identity, client: BankClient, watch: RunWatch
) -> AgreedKeys:
    """Announce our keys, wait for the other members', and make the HE key or open what its maker sealed to us.

    Args:
        roster: the banks that the run begins with.
        secrets: ours; gets the root secret and the HE key.
        identity: our certified key, and who certifies others.
        client: the aggregator.
        watch: the run.

    Raises:
        RosterChanged: a bank was dropped meanwhile; begin again with the others.
        ProtocolViolation: a key is not signed by the bank it names, or the relay changed something.
    """
    run_id, bank = watch.view.run_id, client.bank
    client.announce_key(announce(run_id, bank, secrets, identity))
    announced = _await_announcements(roster, identity, client, watch)
    peers = Peers.of(run_id, bank, secrets, announced)
    _, bundle, crl = client.keys_and_revocations(run_id)
    if bundle is None and min(roster.members) == bank:
        secrets.make_shared()
        client.publish_bundle(make_bundle(run_id, bank, secrets, announced, identity))
    waits = watch.waits("the HE key")
    while bundle is None:
        _, bundle = client.keys(run_id)
        if bundle is None:
            watch.look_again(next(waits), roster.attempt)
    signer = _signer(bundle, announced, client, watch)
    public = open_bundle(bundle, signer, bank, secrets, identity, crl, dt.datetime.now(dt.UTC))
    return AgreedKeys(announced=announced, peers=peers, public_context=public)


def _await_announcements(
    roster: Roster, identity: Identity, client: BankClient, watch: RunWatch
) -> list[KeyAnnouncement]:
    """All members' keys, checked."""
    for pause in watch.waits("the other banks' keys"):
        keys, _, crl = client.keys_and_revocations(watch.view.run_id)
        announced = [key for key in keys if key.bank in roster.members]
        if len(announced) == len(roster.members):
            break
        watch.look_again(pause, roster.attempt)
    check_announcements(announced, identity, crl, dt.datetime.now(dt.UTC))
    return announced


def _signer(
    bundle: KeyBundle, announced: Sequence[KeyAnnouncement], client: BankClient, watch: RunWatch
) -> KeyAnnouncement:
    """Who made the HE key: a member, or a bank that has been dropped since."""
    run_id = watch.view.run_id
    signer = next((key for key in announced if key.bank == bundle.bank), None)
    if signer is None:
        keys, _ = client.keys(run_id)
        signer = next((key for key in keys if key.bank == bundle.bank), None)
    if signer is None or bundle.bank not in watch.view.joined:
        raise ProtocolViolation(f"run {run_id}: the HE key comes from {bundle.bank}, which is not in the run")
    return signer
