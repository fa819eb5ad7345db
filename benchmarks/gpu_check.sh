#!/usr/bin/env bash
# Proves all that openloop says about CUDA, wherever a GPU is: docs/gpu.md says what and how.
#
#   bash benchmarks/gpu_check.sh            at most eight minutes on one H100
#   bash benchmarks/gpu_check.sh --quick    two
#   bash benchmarks/gpu_check.sh --dry      walks its steps on the CPU with tiny models
#
# Writes gpu_check.json, .md, .log and a trace into $OUT (default benchmarks/gpu/). PYTHON is the
# interpreter, .venv/bin/python or python3 where it is not set. Needs no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -z "${PYTHON:-}" ]]; then
  PYTHON=python3
  [[ -x .venv/bin/python ]] && PYTHON=.venv/bin/python
fi
export PYTHONPATH="benchmarks:.${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TOKENIZERS_PARALLELISM=false
export PYTHONUNBUFFERED=1
limit=495
case " $* " in
  *" --dry "*) # no GPU, nor the packages that a bare machine lacks; tiny models want one thread
    export CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1
    export PYTHONPATH="benchmarks/gpu_steps/bare:$PYTHONPATH"
    limit=620 ;;
  *" --quick "*) limit=135 ;;
esac
exec timeout --kill-after=5 "$limit" "$PYTHON" -m gpu_steps.check "$@"
