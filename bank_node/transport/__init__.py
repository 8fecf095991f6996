"""What connects a bank to the node: client, record of what leaves, identity. Holds no HE key."""
