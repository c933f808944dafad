#!/usr/bin/env bash
# From nothing to a trained RepMix and a report of what it can do: installs rmjax into
# .venv, draws the data set attribution_mini, trains on it, evaluates and draws the
# report (minutes on two cores).
# Run again after an interruption, it resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh ""

echo "== drawing the data set attribution_mini"
.venv/bin/rmjax prepare attribution_mini --data-dir data
echo "== training RepMix"
.venv/bin/rmjax train --config attribution_mini --data-dir data --workdir runs/quickstart
echo "== evaluating on the test split"
.venv/bin/rmjax evaluate --workdir runs/quickstart
echo "== drawing the report"
.venv/bin/rmjax report --workdir runs/quickstart
echo
echo "Open in a browser:   runs/quickstart/evaluation/clean/report.html"
echo "Training curves:     there, or tensorboard --logdir runs"
echo "Under corruption:    .venv/bin/rmjax evaluate --workdir runs/quickstart --suite full"
