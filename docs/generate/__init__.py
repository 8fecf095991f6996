"""Writes what the docs say of the code, from the code, at ``make docs``. Not a part of the product; tests import it.

A *page* is a whole file of docs/reference, a *block* a marked part of a page that people write. ``--check`` says which
are stale. `figures` puts in what runs have measured; those blocks carry a digest instead.
"""
