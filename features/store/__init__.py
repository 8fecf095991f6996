"""The day store: partitions, verdicts, newest versions, removal. Makes no feature."""
