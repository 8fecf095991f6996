"""One model over a `Consortium`, on arrays: bins, boosting, search, release. Knows no store and no wire."""
