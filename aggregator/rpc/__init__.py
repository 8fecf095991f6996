"""The gRPC side of the node: who may call, what arrives, what is answered. Decides nothing about runs."""
