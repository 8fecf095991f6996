"""``python -m bank_node``: the same as the ``bank-node`` command."""

from bank_node.cli import main

if __name__ == "__main__":
    main()
