#!/usr/bin/env bash
# One machine: a process for each of its GPUs, or for each core where it has none.
#
#     bash docs/launch/one_machine.sh configs/imdb_lora.toml train.micro_batch_size=2 train.accumulate=8
#
# The recipe comes first, then whatever `python train.py --config RECIPE` takes too. PROCESSES=4 before
# the line starts four. Ctrl-C or SIGTERM saves after the current step. The same line starts a run, goes on
# where it stopped, and leaves a finished one as it is.
set -euo pipefail

config=${1:?"give a recipe: bash docs/launch/one_machine.sh configs/imdb_lora.toml"}
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# --standalone        the processes meet at a port of their own: two runs on a machine do not mix
# --shutdown-timeout  seconds to end the step and save, once torchrun is told to stop; it kills after 30 by
#                     itself, which a large model may not have saved in
exec torchrun --standalone --nproc-per-node "${PROCESSES:-auto}" --shutdown-timeout 300 \
    train.py --config "$config" "$@" --resume
