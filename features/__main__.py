"""``python -m features`` is the ``features`` command."""

from features.cli import main

if __name__ == "__main__":
    main()
