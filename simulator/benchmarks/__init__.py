"""Speed and memory, as ratios in one run. Asserts nothing."""
