"""Tests of the boosting engine: twins, identities, lockstep over banks, and parity with XGBoost."""
