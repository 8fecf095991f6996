"""Crossbank on one machine: data generator, demo, benchmark. Nothing a bank deploys."""
