#!/usr/bin/env bash
# One distributed job on Cloud TPU VMs: a slice of one or many hosts.
#
# Usage: launch/tpu_vm.sh [--dry-run] SUBCOMMAND [ARGUMENT...]
#
#   create            ask for the slice (a queued resource) and wait until it is there
#   setup             on all hosts: rmjax as committed here, the bucket mounted at
#                     /mnt/bucket, its folder data copied to /mnt/data
#   run [ARGUMENT...] start `rmjax train --distributed ARGUMENTS` on all hosts, where it
#                     stays when the connection is lost, and is run again when it can
#                     go on; COMMAND=evaluate for rmjax evaluate
#   status            the slice's state and the last lines of every host's log
#   delete [--yes]    give the slice back (it costs until then); asks first
#
# Environment: TPU, its name; ZONE; BUCKET, without gs:// (for setup); TPU_TYPE
# (default: v5litepod-8); TPU_RUNTIME (default: v2-alpha-tpuv5-lite); SPOT=1 for a slice
# that costs less and may be taken away; POLL, seconds between two looks at a slice that
# is waited for (default: 30). The project is gcloud's. Others: launch/common.sh.
set -euo pipefail
. "$(dirname "$0")/common.sh"

case ${1:-} in --dry-run) DRY_RUN=1 && shift ;; esac
subcommand=${1:-}
case $subcommand in
  -h | --help) usage && exit ;;
  create | setup | run | status | delete) shift ;;
  *) fail "'$subcommand' is not one of create, setup, run, status, delete (--help)" ;;
esac
need gcloud "see cloud.google.com/sdk/docs/install"
[ -n "${TPU:-}" ] || fail "TPU is not set: the name of the slice"
[ -n "${ZONE:-}" ] || fail "ZONE is not set: such as us-west4-a"
queue() { run gcloud compute tpus queued-resources "$@" "--zone=$ZONE"; }

# Runs one line of shell on every host.
everywhere() {
  run gcloud compute tpus tpu-vm ssh "$TPU" "--zone=$ZONE" --worker=all "--command=$1"
}

state() { queue describe "$TPU" "--format=value(state.state)"; }

create() {
  local options=("--node-id=$TPU" "--accelerator-type=${TPU_TYPE:-v5litepod-8}")
  options+=("--runtime-version=${TPU_RUNTIME:-v2-alpha-tpuv5-lite}")
  [ "${SPOT:-0}" = 0 ] || options+=(--spot)
  queue create "$TPU" "${options[@]}"
  while :; do
    local now
    now=$(state)
    [ "$DRY_RUN" = 0 ] || { echo "$now" && return; }
    echo "$TPU: $now"
    case $now in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED) fail "$TPU is $now: launch/tpu_vm.sh delete" ;;
    esac
    sleep "${POLL:-30}"
  done
}

setup() {
  [ -n "${BUCKET:-}" ] || fail "BUCKET is not set: the bucket of data and runs"
  case $BUCKET in *[!a-z0-9._-]*) fail "BUCKET is '$BUCKET': its name, without gs://" ;; esac
  local folder=TEMPORARY
  if [ "$DRY_RUN" = 0 ]; then
    folder=$(mktemp -d)
    # shellcheck disable=SC2064  # the folder as it is now
    trap "rm -rf '$folder'" EXIT
  fi
  run git -C "$root" archive --format=tar.gz "--output=$folder/rmjax.tar.gz" HEAD
  run gcloud compute tpus tpu-vm scp "$folder/rmjax.tar.gz" "$TPU:" "--zone=$ZONE" --worker=all
  everywhere 'mkdir -p rmjax && tar -xzf rmjax.tar.gz -C rmjax'
  everywhere "bash rmjax/launch/tpu_worker.sh setup $BUCKET"
}

delete() {
  case ${1:-} in
    --yes) ;;
    '')
      if [ "$DRY_RUN" = 0 ]; then
        local answer=
        read -r -p "Delete $TPU in $ZONE, and what is on its disks? [y/N] " answer || true
        case $answer in y | Y | yes) ;; *) fail "$TPU was not deleted (--yes: do not ask)" ;; esac
      fi
      ;;
    *) fail "unknown argument $1 of delete" ;;
  esac
  queue delete "$TPU" --force --quiet
  [ "$DRY_RUN" != 0 ] || echo "What is left in $ZONE (all of it costs):"
  queue list
  run gcloud compute tpus tpu-vm list "--zone=$ZONE"
}

case $subcommand in
  create) create ;;
  setup) setup ;;
  run)
    # shellcheck disable=SC2034  # job reads it
    RMJAX=.venv/bin/rmjax # that of the hosts
    job "$@"
    everywhere "MAX_RESTARTS=$MAX_RESTARTS bash rmjax/launch/tpu_worker.sh run $(quoted "${job[@]}")"
    ;;
  status)
    state
    everywhere 'bash rmjax/launch/tpu_worker.sh status'
    ;;
  delete) delete "$@" ;;
esac
