"""The neutral consortium node: it relays keys, adds ciphertexts and keeps the runs. It can't decrypt anything."""
