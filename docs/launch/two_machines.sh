#!/usr/bin/env bash
# Two machines: the same line on both, in any order.
#
#     bash docs/launch/two_machines.sh node-a configs/imdb_lora.toml train.micro_batch_size=1 train.accumulate=16
#
# `node-a` is the name or address of one of the two, by which both reach it. They meet there at TCP port
# 29400 (PORT=…), then connect by ports that the system chooses, so nothing may filter between them.
# MACHINES=4 is for four. PROCESSES=8 sets how many each starts; else a GPU has one, or a core without GPUs.
#
# Both need this folder, the same Python packages, the model and the data. The run's folder belongs to rank
# 0, which is on the machine whose name is first in the alphabet. On a shared disk any machine can go on
# with it; otherwise keep the names.
#
# If one machine fails, the other ends too. The same line on both goes on from the last checkpoint.
set -euo pipefail

meet=${1:?"give a machine and a recipe: bash docs/launch/two_machines.sh node-a configs/imdb_lora.toml"}
config=${2:?"give a recipe: bash docs/launch/two_machines.sh $meet configs/imdb_lora.toml"}
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Processes of a machine with several networks take the first they find. If they do not meet, name the
# right one (`ip route get ADDRESS-OF-THE-OTHER` shows it after `dev`):
#     export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0
exec torchrun --nnodes "${MACHINES:-2}" --nproc-per-node "${PROCESSES:-auto}" \
    --rdzv-backend c10d --rdzv-endpoint "$meet:${PORT:-29400}" --rdzv-id openloop \
    --shutdown-timeout 300 \
    train.py --config "$config" "$@" --resume
