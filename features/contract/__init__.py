"""What a payments table is, and how a bank's columns become it. Reads no payments."""
