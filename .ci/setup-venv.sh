#!/bin/sh
# Makes $VENV with the pinned packages and this project, editable. Called by make; needs no root.
set -eu
if ! command -v "$PYTHON" >/dev/null 2>&1; then
  echo "error: $PYTHON is not there; install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=/path/to/python3.12" >&2
  exit 2
fi
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case "$version" in
  3.11|3.12|3.13) ;;
  *) echo "error: $PYTHON is Python $version; Crossbank needs 3.11, 3.12 or 3.13 (make PYTHON=python3.12)" >&2; exit 2 ;;
esac
have=$("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
if [ "$have" != "$version" ]; then
  echo "making $VENV with Python $version"
  rm -rf "$VENV"
  "$PYTHON" -m venv "$VENV" || { echo "error: can't make a virtual environment; on Debian, install python3-venv" >&2; exit 2; }
fi
pins="pins/py$(echo "$version" | tr -d .).txt"
echo "installing $(grep -c '==' "$pins") pinned packages (about 1.3 GB; seconds to a few minutes)"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
if ! "$VENV/bin/uv" pip install --quiet --compile-bytecode --python "$VENV/bin/python" -r "$pins"; then
  echo "uv could not install; trying pip"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$pins"
fi
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "setuptools>=77"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
echo "ready: $VENV"
