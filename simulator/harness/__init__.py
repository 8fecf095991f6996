"""A whole consortium on one machine: processes, workers, training, search. Makes no payments."""
