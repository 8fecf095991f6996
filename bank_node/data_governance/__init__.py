"""The bank's data as a whole: quality report, drift, retention and purge. Trains nothing."""
