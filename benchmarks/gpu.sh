#!/usr/bin/env bash
# What a GPU makes of training, detection without labels and pseudo-labels; needs less than 8 minutes.
#
#   bash benchmarks/gpu.sh [OUT]              on a machine with a CUDA device
#   bash benchmarks/gpu.sh --dry-run [OUT]    the same commands, small, on the CPU: shows that the script works
#
# PYTHON is the interpreter (python by default). The tables are printed and kept in OUT/gpu.txt; OUT/utilisation.csv has
# the use of the GPU, second by second.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python}
device=cuda backbone=resnet50s channels=256 px=256 batch=8 steps=10 city=4096 limit=150
if [ "${1:-}" = --dry-run ]; then
    device=cpu backbone=resnet18 channels=16 px=64 batch=1 steps=2 city=256 limit=600
    shift
elif ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "No CUDA device was found. Run it with --dry-run to try the script on the CPU." >&2
    exit 2
fi
out=${1:-runs/gpu}
mkdir -p "$out"

report() { echo "$*" | tee -a "$out/gpu.txt"; }
measure() { # a title, then a command
    report "== $1"
    shift
    # A step that fails or is cut off is told and does not keep the others from running; the exit status remembers it.
    timeout "$limit" "$@" 2>&1 | tee -a "$out/gpu.txt" || { report "failed: $*"; failed=1; }
}

: >"$out/gpu.txt"
failed=0
report "$("$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU")')"
if [ "$device" = cuda ]; then
    nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used --format=csv -l 1 >"$out/utilisation.csv" &
    trap 'kill %1 2>/dev/null || true' EXIT
fi

measure "training step, against the plain loop" "$python" benchmarks/train_step.py --backbone "$backbone" \
    --channels "$channels" --px "$px" --batch "$batch" --steps "$steps" --device "$device"
for dtype in float32 bfloat16; do
    measure "detection without labels, $dtype" "$python" benchmarks/detect.py -o "$out/detect" --px "$city" \
        --options="--device $device --dtype $dtype"
    measure "pseudo-labels, $dtype" "$python" benchmarks/pseudo.py "$out/patches" --rounds 1 --city "$city" \
        --device "$device" --dtype "$dtype"
done
if [ "$device" = cuda ]; then
    report "== use of the GPU over all of it, mean of the seconds"
    report "$(awk -F', ' 'NR > 1 { sum += $2; n++ } END { if (n) printf "%.0f %%", sum / n }' "$out/utilisation.csv")"
fi
exit "$failed"
