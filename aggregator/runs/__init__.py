"""Runs, steps and who takes part: the node's decisions. No sockets."""
