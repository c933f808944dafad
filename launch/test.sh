#!/usr/bin/env bash
# Installs rmjax with its test tools into .venv, then checks style, imports and types and
# runs all tests.
# Arguments go to pytest: ./launch/test.sh tests/test_mixing.py -k beta
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh "[test]"

echo "== style"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
echo "== imports"
.venv/bin/lint-imports
echo "== types"
.venv/bin/mypy
echo "== tests"
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
