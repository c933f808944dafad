# shellcheck shell=bash
# Sourced by the launch scripts: what they have in common. The environment's variables,
# the same in all of them:
#
#   RMJAX         the executable (default: .venv's, where there is one, else rmjax)
#   COMMAND       train (default) or evaluate
#   MAX_RESTARTS  how often a job that can go on is run again (default: 20)
#   DRY_RUN=1     print the commands, quoted so that they can be pasted; run nothing

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${RMJAX:-}" ]; then
  RMJAX=$root/.venv/bin/rmjax
  [ -x "$RMJAX" ] || RMJAX=rmjax
fi
COMMAND=${COMMAND:-train}
MAX_RESTARTS=${MAX_RESTARTS:-20}
DRY_RUN=${DRY_RUN:-0}

fail() {
  echo "${0##*/}: error: $*" >&2
  exit 2
}

case $COMMAND in train | evaluate) ;; *) fail "COMMAND is '$COMMAND': train or evaluate" ;; esac
case $MAX_RESTARTS in '' | *[!0-9]*) fail "MAX_RESTARTS is '$MAX_RESTARTS': a number" ;; esac

# The comment at the top of the script, which is its help.
usage() {
  awk 'NR > 1 && !/^#/ { exit } NR > 1 && !/^#SBATCH/ { sub(/^# ?/, ""); print }' "$0"
}

# need TOOL WHERE: ends with an error that says where TOOL comes from.
need() {
  [ "$DRY_RUN" != 0 ] || command -v "$1" >/dev/null || fail "$1 is not installed: $2"
}

# The arguments as one line for a shell.
quoted() {
  local word line=
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=@%+,-]*) word="'${word//\'/\'\\\'\'}'" ;;
    esac
    line="$line${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# Runs a command, or prints it.
run() {
  if [ "$DRY_RUN" = 0 ]; then "$@"; else quoted "$@"; fi
}

# job [ARGUMENT...]: sets the array `job`, the command that each host runs.
# shellcheck disable=SC2034  # read by the scripts
job() {
  workdir "$@"
  job=("$RMJAX" "$COMMAND" --distributed "$@")
}

# again STATUS: whether the same command can go on after it. 75: stopped by SIGTERM, its
# state saved; 70: another process of the job was lost; 134, 137 and 143: killed (aborted
# by JAX's runtime, for want of memory, or before it could listen to SIGTERM).
again() {
  case $1 in 70 | 75 | 134 | 137 | 143) ;; *) return 1 ;; esac
}

# workdir ARGUMENT...: ends with an error where the arguments have no --workdir.
workdir() {
  case " $* " in
    *" --workdir "* | *" --workdir="*) ;;
    *) fail "rmjax $COMMAND needs --workdir DIR, a folder that all hosts see" ;;
  esac
}

# requeue STATUS: ends a job of Slurm with its status, or puts it into the queue again.
requeue() {
  local restarts=${SLURM_RESTART_COUNT:-0} state
  again "$1" || exit "$1"
  if [ "$restarts" -ge "$MAX_RESTARTS" ]; then
    echo "${0##*/}: error: status $1 after $restarts restarts: not requeued" >&2
    exit "$1"
  fi
  # One that was cancelled has got SIGTERM as well, and is not to come back.
  state=$(squeue --noheader --format=%T --jobs="$SLURM_JOB_ID" || true)
  if [ "$state" != RUNNING ]; then
    echo "${0##*/}: status $1, job ${state:-gone}: not requeued" >&2
    exit "$1"
  fi
  echo "${0##*/}: status $1: requeued, restart $((restarts + 1)) of $MAX_RESTARTS" >&2
  scontrol requeue "$SLURM_JOB_ID" || exit "$1"
}

# finish PID: waits for a child, signals notwithstanding, and sets `status`.
# shellcheck disable=SC2034  # read by the scripts
finish() {
  status=0
  wait "$1" || status=$?
  while kill -0 "$1" 2>/dev/null; do # the wait was ended by a signal, not by the child
    status=0
    wait "$1" || status=$?
  done
}
