#!/usr/bin/env bash
# Measures rmjax on this machine's accelerator, in less than 8 minutes and without a
# network: training steps in bfloat16 and forward passes (part `step`), `rmjax train`
# from JPEG files that it makes (`train`), every corruption (`corruptions`), an
# evaluation (`evaluate`, of the run of `train`), and PyTorch's steps where torch is
# installed (`pytorch`). Each part has a time limit and adds its rows to DIR/table.md as
# soon as they are known; one that fails leaves a row that says why, and DIR/PART.log.
# Ends with status 1 if any failed.
#
# Usage: launch/accelerator_check.sh [OPTION...] [PART...]     (default: all of them)
#   --out DIR      the table and the logs (default: $OUT, else runs/accelerator)
#   --limit S      seconds for everything (default: 460)
#   --wheels DIR   wheels of what the machine lacks; they are unpacked for this run alone
#   --quick        a small network and small images, to try it on a CPU
#   --dry-run      print the commands, run nothing
#
# It needs bash, timeout (GNU coreutils), and a Python that has jax for the accelerator
# (jax[cuda12], jax[tpu]) and what else rmjax needs, or gets it from --wheels. rmjax
# itself is run from where this script lies and need not be installed. Compiled programs
# are not taken from earlier runs.
#
# Environment: PYTHON, the interpreter (default: .venv's, where there is one, else
# python3); COMMIT, where this is no checkout of git; DRY_RUN as in launch/common.sh.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# Seconds of each, in this order: what matters most comes first.
limits=(step:240 train:120 corruptions:120 evaluate:60 pytorch:180)

out=${OUT:-runs/accelerator}
total=460
wheels=
quick=()
parts=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit ;;
    --dry-run) DRY_RUN=1 ;;
    --quick) quick=(--quick) ;;
    --out | --limit | --wheels)
      [ $# -gt 1 ] || fail "$1 needs a value"
      case $1 in --out) out=$2 ;; --limit) total=$2 ;; --wheels) wheels=$2 ;; esac
      shift
      ;;
    -*) fail "unknown option $1 (see --help)" ;;
    *)
      case " ${limits[*]} " in
        *" $1:"*) parts+=("$1") ;;
        *) fail "unknown part '$1': choose from ${limits[*]%%:*}" ;;
      esac
      ;;
  esac
  shift
done
case $total in '' | *[!0-9]*) fail "--limit is '$total': give seconds" ;; esac

python=${PYTHON:-$root/.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
need "$python" "name an interpreter: PYTHON=PATH"
need timeout "it comes with GNU coreutils"
[ -z "$wheels" ] || [ -d "$wheels" ] || fail "--wheels $wheels: no such folder"
COMMIT=${COMMIT:-$(git -C "$root" describe --always --dirty --abbrev=12 2>/dev/null || true)}

table=$out/table.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# command_of PART SECONDS: sets the array `job`. What is measured is the code beside this
# script, and compiling it from the start. Whole tracebacks end with the error itself.
command_of() {
  job=(env "PYTHONPATH=$root:$work/site${PYTHONPATH:+:$PYTHONPATH}")
  job+=("JAX_COMPILATION_CACHE_DIR=$work/cache" JAX_TRACEBACK_FILTERING=off)
  job+=(timeout --kill-after=10 "$2")
  job+=("$python" -m rmjax.cli bench accelerator "$1" --workdir "$work/files")
  job+=(${quick[@]+"${quick[@]}"})
}

child=
stopped=
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child" || true' TERM INT

# The end of a log, as a line that fits into a table; a bar was written over itself.
last_line() {
  tail -n 1 "$1" | sed 's/.*\r//' | tr '|' '/' | cut -c 1-300
}

# measure PART SECONDS: adds the rows of a part to the table, and shows them; returns 1
# if it failed.
measure() {
  local left=$((total - SECONDS)) limit=$2 log=$out/$1.log reason='' before
  before=$(wc -l <"$table")
  [ "$left" -ge "$limit" ] || limit=$left
  if [ -n "$stopped" ]; then
    reason="stopped by a signal"
  elif [ "$limit" -le 0 ]; then
    reason="no time is left of $total s"
  else
    command_of "$1" "$limit"
    "${job[@]}" >>"$table" 2>"$log" &
    child=$!
    finish "$child"
    child=
    case $status in
      0) ;;
      124 | 137) reason="not ready in $limit s, see ${log##*/}" ;;
      *) reason="status $status: $(last_line "$log"), see ${log##*/}" ;;
    esac
  fi
  [ -z "$reason" ] || echo "| $1 | | | | failed: $reason |" >>"$table"
  tail -n "+$((before + 1))" "$table"
  [ -z "$reason" ]
}

if [ -n "$wheels" ]; then
  # Not with what they need: jax, say, is there already, in the version for the device.
  run "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
    --no-compile --target "$work/site" "$wheels"/*.whl || fail "--wheels $wheels: see above"
fi
if [ "$DRY_RUN" != 0 ]; then
  for entry in machine:60 "${limits[@]}"; do
    command_of "${entry%:*}" "${entry#*:}"
    run "${job[@]}"
  done
  exit
fi

mkdir -p "$out"
command_of machine 60
head=$("${job[@]}" 2>"$out/machine.log") ||
  fail "$(last_line "$out/machine.log")"
echo "rmjax ${COMMIT:-of an unknown commit}, $(date -u +%F)" | tee -a "$table"
echo "$head" | tee -a "$table"
failed=0
for entry in "${limits[@]}"; do
  case " ${parts[*]-} " in
    "  " | *" ${entry%:*} "*) measure "${entry%:*}" "${entry#*:}" || failed=1 ;;
  esac
done
echo | tee -a "$table"
echo "${0##*/}: $SECONDS s, $table" >&2
exit "$failed"
