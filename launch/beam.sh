#!/usr/bin/env bash
# Prepare a data set with Apache Beam on Flink or Spark, by their job server.
#
#   docker run --net=host apache/beam_flink1.19_job_server --flink-master=HOST:8081
#   docker run --net=host apache/beam_spark3_job_server --spark-master-url=spark://HOST:7077
#   BEAM_JOB_ENDPOINT=localhost:8099 launch/beam.sh parquet --from s3://bucket/files \
#     --source model --data-dir s3://bucket/data
#
# Without --flink-master or --spark-master-url the job server runs Flink or Spark within
# itself, which is enough to try it. On a cluster, each machine of it needs a pool of
# workers like the one started here, at the same port, and rmjax[beam] installed.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${BEAM_JOB_ENDPOINT:?is the address of the job server, such as localhost:8099}"
port="${BEAM_WORKERS_PORT:-50000}"
kind="${1:?is the kind of data set, such as parquet}"
shift

python -m apache_beam.runners.worker.worker_pool_main --service_port="$port" &
trap 'kill $!' EXIT
python -m rmjax.cli prepare "$kind" "$@" --beam "--runner=PortableRunner \
  --job_endpoint=$BEAM_JOB_ENDPOINT --environment_type=EXTERNAL \
  --environment_config=localhost:$port --parallelism=${BEAM_PARALLELISM:-2}"
