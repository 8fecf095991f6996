"""Named caps on everything a peer controls, each with its reason. Only numbers live here."""

from typing import Final

__all__ = [
    "CALLS_PER_SECOND",
    "CALL_BURST",
    "MAX_ATTEMPTS",
    "MAX_BANKS",
    "MAX_BATCH_CHUNKS",
    "MAX_CHUNKS_PER_STEP",
    "MAX_CIPHERTEXT_BYTES",
    "MAX_CALLS_PER_IDENTITY",
    "MAX_CALL_SECONDS",
    "MAX_DETAIL_CHARS",
    "MAX_EVENTS_KEPT",
    "MAX_IDLE_SECONDS",
    "MAX_ID_CHARS",
    "MAX_KEY_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_OPEN_RUNS",
    "MAX_ROUNDS",
    "MAX_SETTINGS_BYTES",
    "MAX_WAIT_SECONDS",
    "MIN_CIPHERTEXT_BYTES",
]

#: Banks in one roster. Also bounds the noise growth: 300 additions decrypt exactly.
MAX_BANKS: Final = 128
#: Characters in a bank id, run id or step name; they appear in paths, logs and HKDF info strings.
MAX_ID_CHARS: Final = 64
#: A sum of our parameters serialises to about 88.6 kB, a fresh ciphertext, seeded, to 46.4; zstd varies it slightly.
MAX_CIPHERTEXT_BYTES: Final = 96 * 1024
#: Fresh ciphertexts are incompressible; anything much smaller is not one.
MIN_CIPHERTEXT_BYTES: Final = 40 * 1024
#: 4096 chunks of 4094 slots: 16.7 million numbers a step, about 360 MB a bank.
MAX_CHUNKS_PER_STEP: Final = 4096
#: Chunks in one message: 16 of the largest stay below `MAX_MESSAGE_BYTES`. A step of no more goes in one call.
MAX_BATCH_CHUNKS: Final = 16
#: One gRPC message: a batch of ciphertexts or one key message with room for framing.
MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
#: A certificate, public context, signature or sealed HE key (70 kB) with room.
MAX_KEY_BYTES: Final = 128 * 1024
#: The run's settings as JSON.
MAX_SETTINGS_BYTES: Final = 256 * 1024
#: Free text in a report or an abort reason.
MAX_DETAIL_CHARS: Final = 2000
#: Events kept for one run's view.
MAX_EVENTS_KEPT: Final = 1000
#: Boosting rounds of one run, all sets of a search together: at a second each, more than a day.
MAX_ROUNDS: Final = 100_000
#: Roster changes within one run; a roster has at most `MAX_BANKS` banks to lose.
MAX_ATTEMPTS: Final = 128
#: Runs not yet ended at one node: each may hold one step's accumulators in memory.
MAX_OPEN_RUNS: Final = 64
#: Calls of one certificate under way at once; each holds a thread. A bank needs one, and one for its watcher.
MAX_CALLS_PER_IDENTITY: Final = 8
#: Longest deadline a call may ask for, in seconds: long enough for 360 MB over a thin link.
MAX_CALL_SECONDS: Final = 3700
#: How long a caller may keep the node waiting for its next message, or for taking one: a message is 0.8 MB at most,
#: which a link of 110 kbit/s carries in a minute.
MAX_IDLE_SECONDS: Final = 60
#: How long the node holds a call that waits for other banks before it says "pending".
MAX_WAIT_SECONDS: Final = 20
#: Calls a second of one certificate, on average and at once: a bank needs a few a step, and polls five times a second.
CALLS_PER_SECOND: Final = 200
CALL_BURST: Final = 400
