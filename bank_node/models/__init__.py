"""Released models at the bank: find, what they saw, compare, refine, score. Trains nothing with others."""
