#!/usr/bin/env bash
# Installs rmjax with its documentation tools into .venv, then builds the documentation into
# site/ (start at site/index.html); a broken link is an error.
# `./launch/docs.sh serve` shows it while you write.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh "[docs]"

exec .venv/bin/mkdocs "${@:-build}" --strict
