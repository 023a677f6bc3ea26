#!/usr/bin/env bash
# Run a suite over several machines without a scheduler. Type this on every node, with the same
# head node and suite; each machine starts its own ranks and gnnbench joins them.
#
#   NODES=2 GPUS=4 HEAD=node-a bash recipes/torchrun.sh my-suite.toml shared/results
#
# The results folder must be seen by all nodes. Without GPUs, GPUS counts the ranks per node.
set -euo pipefail

suite=${1:?usage: torchrun.sh SUITE RESULTS}
results=${2:?usage: torchrun.sh SUITE RESULTS}

exec torchrun \
  --nnodes="${NODES:?number of machines}" \
  --nproc-per-node="${GPUS:?ranks per machine}" \
  --rdzv-backend=c10d \
  --rdzv-endpoint="${HEAD:?name of the first machine}:${PORT:-29500}" \
  --rdzv-id="${JOB:-gnnbench}" \
  -m gnnbench run "$suite" --results "$results"
