#!/usr/bin/env bash
# Prepares a data set with Apache Beam on Flink or Spark, through their job servers:
#
#   docker run --net=host apache/beam_flink1.19_job_server --flink-master=HOST:8081
#   docker run --net=host apache/beam_spark3_job_server --spark-master-url=spark://HOST:7077
#
# Without --flink-master or --spark-master-url the job server runs Flink or Spark within
# itself, which is enough to try it. On a cluster, each of its machines needs a pool of
# workers like the one that is started here, at the same port, with rmjax[beam] installed.
#
# Usage: launch/beam.sh DATASET [ARGUMENT...], as of `rmjax prepare`:
#   launch/beam.sh parquet --from s3://bucket/files --source model --data-dir s3://bucket/data
# The environment's variables:
#   BEAM_JOB_ENDPOINT  the job server (default: localhost:8099)
#   BEAM_WORKERS_PORT  of the pools of workers (default: 50000)
#   BEAM_PARALLELISM   workers at once (default: 2)
#   RMJAX, DRY_RUN     as for the other scripts
set -euo pipefail
. "$(dirname "$0")/common.sh"

case ${1:-} in
  -h | --help) usage && exit ;;
  '') fail "which data set? launch/beam.sh DATASET [ARGUMENT...]" ;;
esac

port=${BEAM_WORKERS_PORT:-50000}
# The pool starts its workers by the name `python`.
PATH=$(dirname "$(command -v "$RMJAX" || echo ./rmjax)"):$PATH
options="--runner=PortableRunner --job_endpoint=${BEAM_JOB_ENDPOINT:-localhost:8099}"
options+=" --environment_type=EXTERNAL --environment_config=localhost:$port"
options+=" --parallelism=${BEAM_PARALLELISM:-2}"

pool=(python -m apache_beam.runners.worker.worker_pool_main "--service_port=$port")
if [ "$DRY_RUN" = 0 ]; then
  "${pool[@]}" &
  trap 'kill $!' EXIT
else
  quoted "${pool[@]}"
fi
run "$RMJAX" prepare "$@" "--beam=$options"
