"""The secure sum of one run: keys, masks, MAC, signatures, ledger and its auditor. Sees no rows."""
