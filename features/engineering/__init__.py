"""From canonical payments to features, point in time. Reads no file of a bank's own."""
