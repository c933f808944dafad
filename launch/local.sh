#!/usr/bin/env bash
# N processes of one distributed job on this machine, on its CPU unless JAX_PLATFORMS
# says otherwise. The output of process 0 is shown, that of the others goes to files.
# When one fails, the others are ended, and its status is the script's. Ctrl-C and
# SIGTERM are passed on to all.
#
# Usage: launch/local.sh [--dry-run] N [ARGUMENT OF rmjax train...]
#        COMMAND=evaluate launch/local.sh N [ARGUMENT OF rmjax evaluate...]
#
# Environment: DEVICES=2 for two CPU devices a process; LOGS, the folder of the others'
# output (default: a new one); GRACE, seconds that processes have to end after SIGTERM
# (default: 60); RMJAX and DRY_RUN as in launch/common.sh.
set -euo pipefail
. "$(dirname "$0")/common.sh"

case ${1:-} in
  -h | --help) usage && exit ;;
  --dry-run) DRY_RUN=1 && shift ;;
esac
processes=${1:-}
case $processes in
  '' | *[!0-9]* | 0) fail "how many processes? launch/local.sh N [ARGUMENT...]" ;;
esac
shift
job "$@"
need "$RMJAX" "run launch/test.sh, or name it: RMJAX=PATH"
need python3 "see python.org"

# The kernel knows which port is free; JAX takes it a moment later.
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
flags=${XLA_FLAGS:-}
if [ -n "${DEVICES:-}" ]; then
  flags="$flags${flags:+ }--xla_force_host_platform_device_count=$DEVICES"
fi
start=(env "JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}" "XLA_FLAGS=$flags" "${job[@]}")
start+=(--coordinator "127.0.0.1:$port" --processes "$processes" --process)

if [ "$DRY_RUN" != 0 ]; then
  for ((i = 0; i < processes; i++)); do run "${start[@]}" "$i"; done
  exit
fi

deadline=
pids=()
# Asks all that still run to end, and sets the time until which they may take.
stop() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
  deadline=${deadline:-$((SECONDS + ${GRACE:-60}))}
}
trap stop TERM INT

logs=${LOGS:-$(mktemp -d)}
mkdir -p "$logs"
[ "$processes" = 1 ] || echo "local.sh: output of the other processes: $logs" >&2
for ((i = 0; i < processes; i++)); do
  if [ "$i" = 0 ]; then
    "${start[@]}" "$i" &
  else
    "${start[@]}" "$i" >"$logs/process-$i.log" 2>&1 &
  fi
  pids+=($!)
done
[ -z "$deadline" ] || stop # a signal came while they were started

result=0
left=$processes
ended=()
while [ "$left" -gt 0 ]; do
  sleep 0.1
  for ((i = 0; i < processes; i++)); do
    [ -z "${ended[i]:-}" ] || continue
    if kill -0 "${pids[i]}" 2>/dev/null; then
      [ -z "$deadline" ] || [ "$SECONDS" -lt "$deadline" ] || kill -KILL "${pids[i]}" || true
      continue
    fi
    ended[i]=1
    left=$((left - 1))
    finish "${pids[i]}"
    if [ "$status" != 0 ] && [ "$result" = 0 ]; then
      result=$status
      echo "local.sh: process $i ended with status $status" >&2
      [ "$i" = 0 ] || tail -n 5 "$logs/process-$i.log" >&2
      stop
    fi
  done
done
exit "$result"
