"""How well scores rank frauds: metrics, and the judge of early stopping. Opens no connection."""
