"""``python -m docs.generate``: writes generated docs, or with ``--check`` says which are stale and ends with 1."""

import argparse
import sys
from pathlib import Path

from docs.generate import figures, pages


def main() -> int:
    """Parse, call, print."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if something is stale")
    parser.add_argument("--figures", action="store_true", help="put in what runs left in .demo and .bench")
    parser.add_argument("--demo", type=Path, default=Path(".demo"), help="where `make demo` left its report")
    parser.add_argument("--bench", type=Path, default=Path(".bench"), help="where `make bench` and its kin left theirs")
    options = parser.parse_args()
    try:
        if options.check:
            wrong, torn = pages.stale(), figures.edited()
            if wrong:
                print(f"stale: {', '.join(wrong)}; run `make docs`")
            for each in torn:
                print(f"{each}: figures are edited by hand; run `make docs-figures` on the run's results")
            if not wrong and not torn:
                print("the docs are fresh")
            return int(bool(wrong or torn))
        for name in pages.write():
            print(f"wrote {name}")
        if options.figures:
            for line in figures.insert(options.demo, options.bench):
                print(line)
        return 0
    except (LookupError, ValueError) as error:
        print(f"error: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
