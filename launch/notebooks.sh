#!/usr/bin/env bash
# Installs rmjax with its test tools into .venv, runs the notebooks of docs/notebooks/ from
# nothing and writes what they put out into them (minutes on two cores).
# Arguments go to pytest: ./launch/notebooks.sh -k own_loop
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh "[test]"
RMJAX_SLOW=1 RMJAX_WRITE_NOTEBOOKS=1 exec .venv/bin/python -m pytest \
  tests/test_notebooks.py "$@"
