"""From the day store to a run's arrays. Trains nothing and sends nothing."""
