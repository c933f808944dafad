#!/usr/bin/env bash
# From nothing to a trained and evaluated RepMix: installs rmjax into .venv, draws
# the data set attribution_mini, trains on it and evaluates (minutes on two cores).
# Run again, it goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh ""

echo "== drawing the data set attribution_mini"
.venv/bin/rmjax prepare attribution_mini --data-dir data
echo "== training RepMix"
.venv/bin/rmjax train --config attribution_mini --data-dir data --workdir runs/quickstart
echo "== evaluating on the test split"
.venv/bin/rmjax evaluate --workdir runs/quickstart
echo
echo "Results:             runs/quickstart/results.json"
echo "Confusion matrices:  runs/quickstart/confusion.png"
echo "Training curves:     tensorboard --logdir runs (or runs/quickstart/curves.png)"
