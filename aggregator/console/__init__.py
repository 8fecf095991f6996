"""The operator's pages. They show, and change nothing."""
