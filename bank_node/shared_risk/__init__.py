"""Shared counterparty risk at a bank: agree with the others, keep the tables, join them to rows. Counts nothing."""
