"""The operator's client of the node. It needs no server and no TenSEAL."""
