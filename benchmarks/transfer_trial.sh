#!/bin/bash
# Whole, killed and resumed, and on two processes: detection on BCCD and segmentation on CamVid; then their report.
#   trial.sh BCCD CAMVID OUT
set -u
bccd=$1 camvid=$2 out=$3; mkdir -p "$out"
common="--backbone timm/test_resnet --seed 0 --run.epochs 2 --run.checkpoint-every-steps 10 --data.workers 0 --run.precision fp32"
detect="detect train --data $bccd --method.channels 32 --method.hidden 64 --method.rois 32 --method.proposals 200 --method.short [160] --method.long 216 --batch-size 4 --optim.name adamw --optim.lr 0.001 --optim.weight-decay 0.05"
segment="segment train --data $camvid --method.head torchvision --method.output-stride 32 --method.crop 128 --method.iterations 92 --method.lr-literal true --batch-size 4"
for task in detect segment; do
    arguments="${!task} $common"
    python -m mixskd $arguments --out "$out/$task-whole" > "$out/$task-whole.log" 2>&1; echo "$task whole: exit $?"
    python -m mixskd $arguments --out "$out/$task-resumed" > "$out/$task-killed.log" 2>&1 & run=$!
    while kill -0 $run 2>/dev/null && [ ! -e "$out/$task-resumed/metrics.csv" ]; do sleep 0.2; done
    sleep 3; kill -9 $run; wait $run; echo "$task killed: exit $?"
    python -m mixskd $arguments --out "$out/$task-resumed" --resume > "$out/$task-resumed.log" 2>&1; echo "$task resumed: exit $?"
    for file in model.safetensors metrics.csv; do
        cmp "$out/$task-whole/$file" "$out/$task-resumed/$file" && echo "$task $file: equal to the bit"
    done
    torchrun --nproc-per-node 2 -m mixskd $arguments --out "$out/$task-two" > "$out/$task-two.log" 2>&1; echo "$task on two processes: exit $?"
done
python -m mixskd report "$out" --out "$out/report.html" 2>&1 | tail -1; echo "report: exit $?"
