"""What the node keeps: runs, sums, audit log. Decides nothing."""
