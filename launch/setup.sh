# shellcheck shell=bash
# Sourced by the other scripts: a virtual environment in .venv with rmjax in it.
# Usage: . launch/setup.sh EXTRAS   (such as "[test]"; may be empty)
# PYTHON chooses the interpreter (default: python3).

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "rmjax needs Python >= 3.11; '$python' is $("$python" --version 2>&1)." >&2
  echo "Name another interpreter: PYTHON=python3.12 $0" >&2
  exit 1
fi
if [ ! -x .venv/bin/python ]; then
  echo "== creating .venv"
  "$python" -m venv .venv
fi
echo "== installing rmjax$1 into .venv (about 1 GB the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".$1"
