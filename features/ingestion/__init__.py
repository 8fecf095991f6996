"""A bank's own file or day into canonical rows and a quarantine. Makes no feature."""
