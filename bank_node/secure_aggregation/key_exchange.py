"""The messages of a run's key ceremony: made, checked, and kept in the ledger. No network, no waiting.

See docs/protocol.md, section 4.
"""

import base64
import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bank_node.secure_aggregation.keys import RunSecrets, open_he_key, open_root, public_part, seal_he_key, seal_root
from bank_node.transport.identity import Identity
from protocol.errors import LocalError, ProtocolViolation
from protocol.messages import KeyAnnouncement, KeyBundle, SealedKey
from protocol.statements import announcement_bytes, bundle_bytes

__all__ = ["announce", "check_announcements", "make_bundle", "open_bundle", "peers_from_record", "peers_record"]


def announce(run_id: str, bank: str, secrets: RunSecrets, identity: Identity) -> KeyAnnouncement:
    """Our public run keys, signed by our certified key."""
    unsigned = KeyAnnouncement(
        run_id=run_id,
        bank=bank,
        x25519_public=secrets.x25519.public_key().public_bytes_raw(),
        ed25519_public=secrets.ed25519.public_key().public_bytes_raw(),
        certificate_pem=identity.certificate_pem,
        signature=b"-",
    )
    return replace(unsigned, signature=identity.sign(announcement_bytes(unsigned)))


def make_bundle(
    run_id: str, bank: str, secrets: RunSecrets, announced: Sequence[KeyAnnouncement], identity: Identity
) -> KeyBundle:
    """What the key-making bank publishes: the HE key under the root secret, and that sealed to every other bank."""
    if secrets.root is None or secrets.he_key is None:
        raise LocalError(f"run {run_id}: no keys to seal")
    public = public_part(secrets.he_key)
    unsigned = KeyBundle(
        run_id=run_id,
        bank=bank,
        public_context=public,
        sealed_context=seal_he_key(secrets.root, run_id, secrets.he_key, public),
        sealed=tuple(
            SealedKey(recipient=a.bank, box=seal_root(a.x25519_public, run_id, a.bank, secrets.root, public))
            for a in announced
            if a.bank != bank
        ),
        signature=b"-",
    )
    return replace(unsigned, signature=identity.sign(bundle_bytes(unsigned)))


def check_announcements(announced: Sequence[KeyAnnouncement], identity: Identity, crl: bytes, now: dt.datetime) -> None:
    """Check that each announcement is signed by the certified key of the bank that it names.

    Args:
        announced: what the aggregator relays.
        identity: checks certificates against our CA.
        crl: the CA's revocation list, PEM; empty if the node has none.
        now: by which certificates must be valid.

    Raises:
        ProtocolViolation: one is not.
    """
    for key in announced:
        identity.verify(key.bank, key.certificate_pem, announcement_bytes(key), key.signature, now, crl)


def open_bundle(
    bundle: KeyBundle,
    signer: KeyAnnouncement,
    bank: str,
    secrets: RunSecrets,
    identity: Identity,
    crl: bytes,
    now: dt.datetime,
) -> bytes:
    """Check a bundle and keep what is sealed to us in it, in `secrets`.

    Args:
        bundle: what the aggregator relays.
        signer: the announcement of the bank that made it.
        bank: our id.
        secrets: our run keys; gets the root secret and the HE key.
        identity: checks certificates against our CA.
        crl: the CA's revocation list, PEM; empty if the node has none.
        now: by which the signer's certificate must be valid.

    Returns:
        The public HE context.

    Raises:
        ProtocolViolation: it is not signed by its maker, holds no box for us, or is not what we made ourselves.
    """
    run_id, public = bundle.run_id, bundle.public_context
    identity.verify(bundle.bank, signer.certificate_pem, bundle_bytes(bundle), bundle.signature, now, crl)
    if bundle.bank == bank:
        if secrets.he_key is None or public_part(secrets.he_key) != public:
            raise ProtocolViolation(f"run {run_id}: the aggregator relays an HE key that we did not make")
        return public
    boxes = [sealed.box for sealed in bundle.sealed if sealed.recipient == bank]
    if len(boxes) != 1:
        raise ProtocolViolation(f"run {run_id}: bank {bundle.bank} has sealed no key to bank {bank}")
    secrets.root = open_root(secrets.x25519, run_id, bank, boxes[0], public)
    secrets.he_key = open_he_key(secrets.root, run_id, bundle.sealed_context, public)
    secrets.save()
    return public


def peers_record(announced: Sequence[KeyAnnouncement]) -> list[dict[str, Any]]:
    """All banks' announcements as the ledger keeps them."""
    return [
        {
            "bank": a.bank,
            "certificate": a.certificate_pem.decode(),
            "x25519": a.x25519_public.hex(),
            "ed25519": a.ed25519_public.hex(),
            "signature": base64.b64encode(a.signature).decode(),
        }
        for a in announced
    ]


def peers_from_record(run_id: str, peers: Sequence[dict[str, Any]]) -> list[KeyAnnouncement]:
    """The inverse of `peers_record`."""
    return [
        KeyAnnouncement(
            run_id=run_id,
            bank=peer["bank"],
            x25519_public=bytes.fromhex(peer["x25519"]),
            ed25519_public=bytes.fromhex(peer["ed25519"]),
            certificate_pem=peer["certificate"].encode(),
            signature=base64.b64decode(peer["signature"]),
        )
        for peer in peers
    ]
