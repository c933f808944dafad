#!/usr/bin/env bash
# What launch/tpu_vm.sh has each host of a slice do.
#
# Usage: launch/tpu_worker.sh setup BUCKET
#        launch/tpu_worker.sh run COMMAND [ARGUMENT...]
#        launch/tpu_worker.sh status
#
# `run` goes on when the connection is lost; it writes to ~/rmjax.log, and its process
# number, for kill, to ~/rmjax.pid.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/common.sh
log=$HOME/rmjax.log

running() { ! flock --nonblock "$HOME/rmjax.lock" true; }

# gcsfuse as its documentation installs it. What one host writes, the others see at once
# (no cache of metadata), and a folder can be renamed, as saving a checkpoint does.
mount_bucket() {
  if ! command -v gcsfuse >/dev/null; then
    local site=https://packages.cloud.google.com/apt key=/usr/share/keyrings/cloud.google.asc
    curl --silent --show-error --fail "$site/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] $site gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    # A new host may be busy with updates of its own.
    sudo apt-get -o DPkg::Lock::Timeout=600 update -qq
    sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq gcsfuse
  fi
  sudo mkdir -p /mnt/bucket /mnt/data
  sudo chown "$(id -u):$(id -g)" /mnt/data
  mountpoint --quiet /mnt/bucket && return
  sudo chown "$(id -u):$(id -g)" /mnt/bucket
  gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 \
    --metadata-cache-negative-ttl-secs=0 "$1" /mnt/bucket
}

case ${1:-} in
  setup)
    [ -n "${2:-}" ] || fail "setup needs the name of the bucket"
    # The image's Python is 3.10; rmjax needs 3.11.
    python3 -m pip install --quiet --user uv
    uv=$(python3 -m site --user-base)/bin/uv
    "$uv" python install --quiet 3.12
    PYTHON=$("$uv" python find 3.12)
    # shellcheck source=launch/setup.sh
    . launch/setup.sh "[tpu]"
    mount_bucket "$2"
    gcloud storage rsync --recursive "gs://$2/data" /mnt/data
    echo "$(hostname): ready"
    ;;
  run)
    shift
    [ $# -gt 0 ] || fail "run needs a command"
    ! running || fail "$(hostname): one is running already: launch/tpu_vm.sh status"
    setsid nohup flock --nonblock --no-fork "$HOME/rmjax.lock" \
      launch/retry.sh "$@" >>"$log" 2>&1 </dev/null &
    echo $! >"$HOME/rmjax.pid"
    echo "$(hostname): started"
    ;;
  status)
    if running; then echo "== $(hostname): running"; else echo "== $(hostname): not running"; fi
    [ ! -f "$log" ] || tail -n 5 "$log"
    ;;
  -h | --help) usage ;;
  *) fail "'${1:-}' is not one of setup, run, status" ;;
esac
