"""What may cross the wire between banks and the consortium node. It never touches rows, models or secrets' use."""
