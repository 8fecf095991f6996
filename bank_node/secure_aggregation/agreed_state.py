"""What a bank holds after a run's key exchange, as one value: roster, keys, seeds, and the state chain. Sends nothing.

A frozen value but for the chain's place and the helpers behind the cipher; a smaller roster makes a new one. It signs,
since each signature is over the roster and the chain as they stand here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bank_node.secure_aggregation.cipher_pool import CipherPool
from bank_node.secure_aggregation.keys import RunSecrets, group_secret
from protocol.errors import ProtocolViolation
from protocol.he_parameters import HE_FINGERPRINT
from protocol.masks import SecretBytes, pair_seed, roster_digest
from protocol.messages import KeyAnnouncement, PhaseReport, StepHeader
from protocol.run_state import Phase
from protocol.statements import StateChain, report_bytes, statement_bytes

__all__ = ["AgreedState", "Peers", "Roster"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The banks that an attempt goes on with.

    Attributes:
        attempt: counted from 0; one more each time that banks were dropped.
        members: sorted by name; none before the key exchange.
    """

    attempt: int = 0
    members: tuple[str, ...] = ()

    @property
    def digest(self) -> bytes:
        """What masks, MACs and signatures are bound to."""
        return roster_digest(self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """What the announced keys give.

    Attributes:
        run_keys: each bank's key for signatures in this run.
        seeds: the mask seed that we share with each other bank.
    """

    run_keys: Mapping[str, Ed25519PublicKey]
    seeds: Mapping[str, SecretBytes] = field(repr=False)

    @classmethod
    def of(cls, run_id: str, bank: str, secrets: RunSecrets, announced: Sequence[KeyAnnouncement]) -> "Peers":
        """From announcements whose signatures have been checked.

        Raises:
            ProtocolViolation: a key is no valid point.
        """
        return cls(
            run_keys={a.bank: Ed25519PublicKey.from_public_bytes(a.ed25519_public) for a in announced},
            seeds={
                a.bank: pair_seed(secrets.x25519, a.x25519_public, run_id, bank, a.bank)
                for a in announced
                if a.bank != bank
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AgreedState:
    """All that a secure sum or a report needs.

    Attributes:
        run_id: the run.
        bank: our id.
        roster: whom we add with.
        peers: the other banks' keys.
        chain: digest of all that we hold to be true, equal at all banks.
        group: the secret of the run's banks behind MACs, witnesses and states.
        cipher: the run's HE key.
        signing_key: ours for this run.
    """

    run_id: str
    bank: str
    roster: Roster
    peers: Peers
    chain: StateChain
    group: SecretBytes
    cipher: CipherPool
    signing_key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def begin(
        cls, run_id: str, bank: str, roster: Roster, peers: Peers, secrets: RunSecrets, start: bytes, processes: int
    ) -> "AgreedState":
        """From complete secrets; starts the cipher's helper processes.

        Args:
            run_id: the run.
            bank: our id.
            roster: whom we add with.
            peers: the other banks' keys.
            secrets: ours, with the HE key in them.
            start: `start_digest`, where the chain begins; nothing where its place is set afterwards.
            processes: how many helpers encrypt, see `CipherPool`.

        Raises:
            ProtocolViolation: there is no HE key.
        """
        if secrets.root is None or secrets.he_key is None:
            raise ProtocolViolation(f"run {run_id}: no HE key")
        group = group_secret(secrets.root)
        return cls(
            run_id=run_id,
            bank=bank,
            roster=roster,
            peers=peers,
            chain=StateChain(group, start),
            group=group,
            cipher=CipherPool(secrets.he_key, processes),
            signing_key=secrets.ed25519,
        )

    def with_roster(self, roster: Roster) -> "AgreedState":
        """The same with fewer banks."""
        return replace(self, roster=roster)

    def header(self, step: str, *, chunks: int, length: int) -> StepHeader:
        """What we state with our upload for a step, signed."""
        unsigned = StepHeader(
            run_id=self.run_id,
            bank=self.bank,
            step=step,
            attempt=self.roster.attempt,
            chunks=chunks,
            length=length,
            he_fingerprint=HE_FINGERPRINT,
            roster_digest=self.roster.digest,
            state=self.chain.value,
        )
        return replace(unsigned, signature=self.signing_key.sign(statement_bytes(unsigned)))

    def report(
        self,
        phase: Phase,
        digest: str,
        *,
        accept: bool,
        metrics_json: str,
        detail: str,
        audit: tuple[int, str] = (0, ""),
    ) -> PhaseReport:
        """What we state at a phase's end, signed; `audit` is the end of the node's audit log as it told us."""
        unsigned = PhaseReport(
            run_id=self.run_id,
            bank=self.bank,
            phase=phase.value,
            digest=digest,
            accept=accept,
            metrics_json=metrics_json,
            detail=detail,
            attempt=self.roster.attempt,
            roster_digest=self.roster.digest,
            state=self.chain.value,
            audit_records=audit[0],
            audit_digest=audit[1],
        )
        return replace(unsigned, signature=self.signing_key.sign(report_bytes(unsigned)))
