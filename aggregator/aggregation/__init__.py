"""Adding ciphertexts. It can't decrypt, and refuses a context that could."""
