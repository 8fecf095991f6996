"""The consortium's certificate authority, kept apart from the node. Serves nothing."""
