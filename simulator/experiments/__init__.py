"""What pooling and shared risk bring, measured on generated and outside data. Part of no run."""
