"""One bank's part in one run: join, key exchange, secure sums, reports. It sees no rows, only integer vectors.

Every step can be repeated: keys are kept in the run's folder until it ends, masks are derived, and the aggregator
counts each bank's chunk once. See docs/architecture.md, "Secure sum".
"""

import datetime as dt
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bank_node.client import BankClient
from bank_node.encryption import ChunkCipher
from bank_node.identity import Identity
from bank_node.keys import RunSecrets, make_he_key, open_he_key, public_part, seal_he_key
from protocol.errors import LocalError, ProtocolViolation, RemoteError, RunAborted
from protocol.field import HALF, add, decode_signed, encode_signed
from protocol.he_parameters import HE_FINGERPRINT
from protocol.layout import chunk_count, join_chunks, split_chunks
from protocol.masks import SecretBytes, chunk_mask, pair_seed
from protocol.messages import (
    Chunk,
    JoinRequest,
    KeyAnnouncement,
    KeyBundle,
    PhaseReport,
    RunView,
    SealedKey,
    StepHeader,
)
from protocol.run_state import Phase

__all__ = ["RunSession"]

_ORDER: list[Phase] = [p for p in Phase if p is not Phase.ABORTED]
_POLL_SECONDS = 0.2

Log = Callable[[str], None]


class RunSession:
    """A bank in a run. Make it, `join`, `exchange_keys`, then `secure_sum` and `report` as the phases go."""

    def __init__(self, client: BankClient, identity: Identity, run_id: str, run_dir: Path, log: Log) -> None:
        self.client = client
        self.bank = client.bank
        self.run_id = run_id
        self.view: RunView = client.run(run_id)
        self.bytes_sent = 0
        self._identity = identity
        self._log = log
        self._run_dir = run_dir
        self._seeds: dict[str, SecretBytes] = {}
        self._cipher: ChunkCipher | None = None
        self._bound: dict[str, str] | None = None
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._check_alive()

    # -- phases -----------------------------------------------------------------------------------------------

    def join(self, contract_fingerprint: str) -> None:
        """Join the run; harmless when we have already.

        Raises:
            LocalError: the run announces another data contract than ours.
        """
        announced = self.view.settings.contract_fingerprint
        if announced != contract_fingerprint:
            raise LocalError(
                f"run {self.run_id} uses data contract {announced[:12]}, bank {self.bank} has "
                f"{contract_fingerprint[:12]}; install the consortium's contract"
            )
        self.view = self.client.join(
            JoinRequest(
                run_id=self.run_id,
                bank=self.bank,
                contract_fingerprint=contract_fingerprint,
                he_fingerprint=HE_FINGERPRINT,
            )
        )
        self._log(f"joined {self.run_id}: {len(self.view.joined)} of {len(self.view.roster)} banks are in")

    def exchange_keys(self) -> None:
        """Agree on mask seeds with every other bank and on the run's HE key; then report KEYING.

        Raises:
            ProtocolViolation: a key is not signed by the bank it names, or the relay changed something.
        """
        self.wait_for(Phase.KEYING)
        secrets = RunSecrets.load_or_make(self._run_dir / "secrets.json")
        own_public = secrets.x25519.public_key().public_bytes_raw()
        self.client.announce_key(
            KeyAnnouncement(
                run_id=self.run_id,
                bank=self.bank,
                x25519_public=own_public,
                certificate_pem=self._identity.certificate_pem,
                signature=self._identity.sign(_key_message(self.run_id, self.bank, own_public)),
            )
        )
        roster = sorted(self.view.roster)
        announced = self._await_announcements(roster)
        self._seeds = {
            peer: pair_seed(secrets.x25519, key.x25519_public, self.run_id, self.bank, peer)
            for peer, key in announced.items()
            if peer != self.bank
        }
        if roster[0] == self.bank:
            public = self._publish_he_key(secrets)
        else:
            public = self._receive_he_key(secrets, roster[0], announced[roster[0]].certificate_pem)
        if secrets.he_key is None:
            raise ProtocolViolation(f"run {self.run_id}: no HE key")
        self._cipher = ChunkCipher(secrets.he_key)
        agreed = hashlib.sha256(public + b"".join(announced[b].x25519_public for b in roster)).hexdigest()
        self.report(Phase.KEYING, agreed)
        self._log("keys agreed: the HE key is at the banks only, mask seeds are pairwise")

    def secure_sum(self, step: str, vector: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The sum over the roster's banks of one int64 vector each; all must call it with the same length.

        Args:
            step: name of the step, ``phase/round/index``; used once a run.
            vector: shape (n,), each magnitude at most HALF // banks, so that no total can wrap.

        Returns:
            int64, shape (n,): the exact sum.

        Raises:
            FieldOverflow: a number is too large; nothing was sent.
            RemoteError: the run ended, or the answer can't be the sum; use nothing of it.
        """
        if self._cipher is None:
            raise LocalError("secure sums come after the key exchange")
        cipher = self._cipher
        self._bind(step, vector)
        laid = split_chunks(encode_signed(np.ascontiguousarray(vector, dtype=np.int64), HALF // len(self.view.roster)))
        header = StepHeader(
            run_id=self.run_id,
            bank=self.bank,
            step=step,
            attempt=0,
            chunks=chunk_count(vector.size),
            length=vector.size,
            he_fingerprint=HE_FINGERPRINT,
        )

        def chunks() -> Iterator[Chunk]:
            for index in range(header.chunks):
                masked = add(laid[index], chunk_mask(self.bank, self._seeds, self.run_id, step, 0, index))
                ciphertext = cipher.encrypt(masked)
                self.bytes_sent += len(ciphertext)
                yield Chunk(index=index, ciphertext=ciphertext)

        sums = self.client.secure_sum(header, chunks, 2.0 * self.view.settings.step_seconds)
        total = np.stack([cipher.decrypt(body) for body in sums])
        try:
            return decode_signed(join_chunks(total, vector.size))
        except RemoteError as error:
            raise ProtocolViolation(f"run {self.run_id}, step {step}: {error}") from error

    def report(
        self, phase: Phase, digest: str, *, accept: bool = True, metrics_json: str = "", detail: str = ""
    ) -> None:
        """Say that we ended a phase, and wait until all banks have, with the same digest."""
        self.view = self.client.report(
            PhaseReport(
                run_id=self.run_id,
                bank=self.bank,
                phase=phase.value,
                digest=digest,
                accept=accept,
                metrics_json=metrics_json,
                detail=detail,
            )
        )
        self.wait_for(_ORDER[_ORDER.index(phase) + 1])

    def wait_for(self, phase: Phase) -> None:
        """Wait until the run has reached a phase or gone beyond it.

        Raises:
            RunAborted: the run ended. The aggregator's deadlines see to it that a wait ends.
        """
        pause = _POLL_SECONDS / 4
        told = False
        while True:
            self._check_alive()
            if _ORDER.index(Phase(self.view.phase)) >= _ORDER.index(phase):
                return
            if not told and pause > 1:
                told = True
                self._log(f"run {self.run_id} is in {self.view.phase}: waiting for the other banks")
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)
            self.view = self.client.run(self.run_id)

    def reached(self, phase: Phase) -> bool:
        """Whether the run is at a phase or beyond."""
        return _ORDER.index(Phase(self.view.phase)) >= _ORDER.index(phase)

    def end(self) -> None:
        """Wipe the run's keys."""
        path = self._run_dir / "secrets.json"
        if path.exists():
            RunSecrets.load_or_make(path).wipe()
        self._cipher, self._seeds = None, {}

    # -- inside -----------------------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self.view.phase == Phase.ABORTED:
            self.end()
            raise RunAborted(f"run {self.run_id} was aborted: {self.view.reason}")

    def _bind(self, step: str, vector: npt.NDArray[np.int64]) -> None:
        """Refuse a second, different vector for a step: under the same masks, the difference would show."""
        path = self._run_dir / "steps.jsonl"
        digest = hashlib.sha256(np.ascontiguousarray(vector, dtype="<i8").tobytes()).hexdigest()
        if self._bound is None:
            lines = path.read_text().splitlines() if path.exists() else []
            self._bound = dict(json.loads(line) for line in lines if line.endswith("]"))
        known = self._bound.setdefault(step, digest)
        if known != digest:
            raise LocalError(
                f"run {self.run_id}, step {step}: bank {self.bank} has already sent other numbers for this step; "
                "its rows or settings changed during the run. End the run and open a new one"
            )
        with path.open("a") as file:
            file.write(json.dumps([step, digest]) + "\n")

    def _await_announcements(self, roster: list[str]) -> dict[str, KeyAnnouncement]:
        while True:
            keys, _ = self.client.keys(self.run_id)
            announced = {key.bank: key for key in keys}
            if set(announced) == set(roster):
                break
            time.sleep(_POLL_SECONDS)
            self.view = self.client.run(self.run_id)
            self._check_alive()
        now = dt.datetime.now(dt.UTC)
        for bank, key in announced.items():
            message = _key_message(self.run_id, bank, key.x25519_public)
            self._identity.verify(bank, key.certificate_pem, message, key.signature, now)
        return announced

    def _publish_he_key(self, secrets: RunSecrets) -> bytes:
        if secrets.he_key is None:
            secrets.he_key = make_he_key()
            secrets.save()
        public = public_part(secrets.he_key)
        self.client.publish_bundle(
            KeyBundle(
                run_id=self.run_id,
                bank=self.bank,
                public_context=public,
                sealed=tuple(
                    SealedKey(recipient=peer, box=seal_he_key(seed, self.run_id, peer, secrets.he_key))
                    for peer, seed in sorted(self._seeds.items())
                ),
                signature=self._identity.sign(_bundle_message(self.run_id, self.bank, public)),
            )
        )
        return public

    def _receive_he_key(self, secrets: RunSecrets, maker: str, certificate_pem: bytes) -> bytes:
        while True:
            _, bundle = self.client.keys(self.run_id)
            if bundle is not None:
                break
            time.sleep(_POLL_SECONDS)
            self.view = self.client.run(self.run_id)
            self._check_alive()
        message = _bundle_message(self.run_id, maker, bundle.public_context)
        self._identity.verify(maker, certificate_pem, message, bundle.signature, dt.datetime.now(dt.UTC))
        boxes = [sealed.box for sealed in bundle.sealed if sealed.recipient == self.bank]
        if bundle.bank != maker or len(boxes) != 1:
            raise ProtocolViolation(f"run {self.run_id}: bank {maker} has sealed no HE key to bank {self.bank}")
        secrets.he_key = open_he_key(self._seeds[maker], self.run_id, self.bank, boxes[0], bundle.public_context)
        secrets.save()
        return bundle.public_context


def _key_message(run_id: str, bank: str, public: bytes) -> bytes:
    return f"crossbank/1 X25519 key\0{run_id}\0{bank}\0".encode() + public


def _bundle_message(run_id: str, bank: str, public_context: bytes) -> bytes:
    return f"crossbank/1 HE context\0{run_id}\0{bank}\0".encode() + hashlib.sha256(public_context).digest()
