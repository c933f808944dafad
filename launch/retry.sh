#!/usr/bin/env bash
# Runs a command, and again when it ends with a status after which it can go on (75:
# stopped by SIGTERM; 70: another process of the job was lost), MAX_RESTARTS times at
# most (default: 20), PAUSE seconds apart (default: 10). SIGTERM is passed on and is the
# end of it. Ends with the last status.
#
# Usage: launch/retry.sh COMMAND [ARGUMENT...]
set -euo pipefail
. "$(dirname "$0")/common.sh"

case ${1:-} in
  -h | --help) usage && exit ;;
  '') fail "which command? launch/retry.sh COMMAND [ARGUMENT...]" ;;
esac

child=
stopped=
stop() {
  stopped=1
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true
}
trap stop TERM INT

restarts=0
while :; do
  "$@" &
  child=$!
  finish "$child"
  echo "retry.sh: $(date -u +%FT%TZ): ended with status $status" >&2
  if [ -n "$stopped" ] || ! again "$status"; then exit "$status"; fi
  if [ "$restarts" -ge "$MAX_RESTARTS" ]; then
    echo "retry.sh: error: it was run again $restarts times; look at its log" >&2
    exit "$status"
  fi
  restarts=$((restarts + 1))
  child=
  sleep "${PAUSE:-10}" & # in the background, or a signal would have to wait for it
  wait $! || true
  [ -z "$stopped" ] || exit "$status"
  echo "retry.sh: run again, $restarts of $MAX_RESTARTS" >&2
done
