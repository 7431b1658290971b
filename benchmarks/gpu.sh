#!/bin/bash
# All that a machine with a GPU is asked for, in order, in as many calls as it takes:
#
#   CIFAR100=cifar100.npz OUT=out bash benchmarks/gpu.sh [STAGE ...]
#
# CIFAR100   CIFAR-100 under MedMNIST's keys
# OUT        where small results go: JSON, metrics, summaries, the fp16 weights of the best MixSKD run
# STATE      where runs, marks of finished stages and what was compiled stay between calls (runs/gpu)
# LIMIT      seconds that this call may take (570); a training run is then stopped by SIGTERM, and goes on next time
# WHEELS     a folder of wheels for what the machine lacks; without it nothing is installed, and what cannot run is left
#            out. Where there is a network it is made by
#            pip download -d WHEELS --only-binary=:all: --no-deps --python-version 3.12 --platform manylinux_2_28_x86_64 \
#              pyyaml safetensors rich markdown-it-py mdurl pygments scikit-learn scipy joblib threadpoolctl narwhals \
#              msgspec torchmetrics lightning-utilities packaging pytest iniconfig pluggy pytest-timeout pytest-xdist \
#              execnet hypothesis sortedcontainers
# FLOWERS17  a folder of flowers17, CLASS/*.jpg, to see whether 8 workers feed a step at 224 px
# RELEASED   a clone of github.com/winycg/Self-KD-Lib, whose step is timed beside ours
# CHECKPOINTS=1 copies unfinished runs' checkpoints to OUT, and takes up those that lie in RESUME
# TINY=1     shrinks everything, to try the script on a CPU
#
# Stages: tests speed loader released train weights (all by default).
set -u
cd "$(dirname "$0")/.." || exit 1
STARTED=$SECONDS LIMIT=${LIMIT:-570} STATE=${STATE:-runs/gpu} OUT=${OUT:?where results go}
export PYTHONPATH=$PWD/src:$PWD PIP_BREAK_SYSTEM_PACKAGES=1
mkdir -p "$STATE/done" "$STATE/train" "$OUT"
OUT=$(realpath "$OUT") STATE=$(realpath "$STATE")
# What was compiled once is there for the next call; it is too much for OUT.
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$STATE/inductor}
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$STATE/triton}
# The seconds that a measurement or a group of tests needs if it compiles.
COMPILES=240

left() { echo $((LIMIT - (SECONDS - STARTED))); }

# once NAME NEEDED COMMAND...: runs COMMAND unless it has succeeded before, or fewer than NEEDED seconds are left.
once() {
  local name=$1 needed=$2; shift 2
  if [ -e "$STATE/done/$name" ]; then return 0; fi
  if [ "$(left)" -lt "$needed" ]; then echo "-- $name: $(left) s left, next time"; return 1; fi
  echo "-- $name"
  # With --foreground, COMMAND gets the signal once. A second one would end a run before it is saved.
  timeout --foreground --signal=TERM --kill-after=45 $(($(left) - 20)) "$@" > "$OUT/$name.log" 2>&1
  local code=$?
  tail -n 25 "$OUT/$name.log"
  if [ $code = 0 ]; then touch "$STATE/done/$name"; else echo "-- $name: exit code $code"; fi
  return $code
}

# torch, torchvision and NumPy are expected to be there. matplotlib draws figures, and no stage has any.
NEEDED="msgspec=msgspec yaml=pyyaml rich=rich safetensors=safetensors scipy=scipy sklearn=scikit-learn"
NEEDED="$NEEDED torchmetrics=torchmetrics"
FOR_TESTS="pytest=pytest pytest_timeout=pytest-timeout xdist=pytest-xdist hypothesis=hypothesis"

lacking() { # those of MODULE=PACKAGE... that this Python cannot import
  python - "$@" <<'PY'
import sys
from importlib.util import find_spec
pairs = [word.split("=") for word in sys.argv[1:]]
print(" ".join(package for module, package in pairs if find_spec(module) is None))
PY
}

# shellcheck disable=SC2086  # several names
install() { # from WHEELS, if that is given; fails if a run would lack something then
  local missing; missing=$(lacking $NEEDED $FOR_TESTS)
  if [ -n "$missing" ] && [ -n "${WHEELS:-}" ]; then
    echo "-- installing $missing"
    python -m pip install --quiet --no-index --find-links "$WHEELS" $missing
  fi
  missing=$(lacking $NEEDED)
  if [ -n "$missing" ]; then echo "-- this Python lacks $missing; give a folder of wheels as WHEELS"; return 1; fi
}

# shellcheck disable=SC2086
tests() {
  local missing; missing=$(lacking $FOR_TESTS)
  if [ -n "$missing" ]; then echo "-- tests: this Python lacks $missing"; return 0; fi
  python -c 'import sys, torch; print(sys.version, torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name())' | tee "$OUT/machine.txt"
  nvidia-smi > "$OUT/nvidia-smi.txt" 2>&1
  # In parts, as each compiles much: eager, compiled and recorded steps agree; none waits or compiles again; the rest.
  # The files are named, because others import what this machine may lack.
  local rest; rest=$(grep -rlE --include='*.py' '^@pytest\.mark\.gpu' tests | grep -v tests/training/test_step.py | sort)
  once tests_agree $COMPILES python -m pytest -n 0 -m gpu -q -rs tests/training/test_step.py -k "agrees or updates"
  once tests_step $COMPILES python -m pytest -n 0 -m gpu -q -rs tests/training/test_step.py -k "not agrees and not updates"
  once tests $COMPILES python -m pytest -n 0 -m gpu -q -rs $rest
}

CIFAR100=$(realpath "${CIFAR100:?the path of cifar100.npz}")
if [ -n "${TINY:-}" ]; then # two images of each class
  python - "$CIFAR100" "$STATE/tiny.npz" <<'PY' || exit 1
import sys
import numpy as np
with np.load(sys.argv[1]) as whole:
    few = {key: whole[key] for key in whole if "_" not in key}
    for part in ("train", "test"):
        labels = whole[f"{part}_labels"].reshape(-1)
        first = np.unique(labels, return_index=True)[1].repeat(2)
        few |= {f"{part}_labels": labels[first], f"{part}_images": whole[f"{part}_images"][first]}
np.savez(sys.argv[2], **few)
PY
  CIFAR100=$STATE/tiny.npz
fi
SPEED=(cifar100 --data "$CIFAR100")
TRAIN=("${SPEED[@]}" --run.evaluate-every 5 --run.checkpoint-every-epochs 20)
ROUNDS=20 RELEASED_NET=(--backbone cifar_resnet18_linear_stem)
if [ -n "${TINY:-}" ]; then
  SPEED+=(--backbone wrn_10_1 --batch-size 8) ROUNDS=1 RELEASED_NET=()
  TRAIN+=(--backbone wrn_10_1 --epochs 2 --optim.warmup-epochs 0)
fi

# What decides which variants there are: "gpu", "eager" for a GPU without a compiler, or "cpu".
machine() {
  python - <<'PY'
import torch
from mixskd.training.engine import why_not_compile
gpu = torch.cuda.is_available()
print("cpu" if not gpu else "eager" if why_not_compile(torch.device("cuda")) else "gpu")
PY
}

speed() {
  # plain and default stand in each part, so that each has both to compare with.
  local first second
  case $(machine) in
    gpu) first=plain,low_precision,eager,without_graphs,default
         second=plain,default,without_compile,without_fused ;;
    eager) first=plain,low_precision,without_graphs,default second=plain,default,without_fused ;;
    *) first=plain,low_precision,default second=plain,default,without_fused ;;
  esac
  # One that fails does not stop the others.
  once speed_mixskd $COMPILES python -m mixskd benchmark "${SPEED[@]}" --variants "$first" --rounds $ROUNDS --out "$OUT/speed_mixskd.json"
  once speed_mixskd_without $COMPILES python -m mixskd benchmark "${SPEED[@]}" --variants "$second" --rounds $ROUNDS --out "$OUT/speed_mixskd_without.json"
  once speed_baseline $COMPILES python -m mixskd benchmark "${SPEED[@]}" --method baseline --variants plain,default --rounds $ROUNDS --out "$OUT/speed_baseline.json"
  once speed_wrn $COMPILES python -m mixskd benchmark "${SPEED[@]}" --backbone wrn_16_2 --variants plain,default --rounds $ROUNDS --out "$OUT/speed_wrn.json"
}

loader() {
  if [ ! -d "${FLOWERS17:-}" ]; then echo "-- loader: FLOWERS17 is no folder"; return 0; fi
  local size=224 few=(); if [ -n "${TINY:-}" ]; then size=64 few=(--batch-size 4 --rounds 1); fi
  once loader $COMPILES python -m mixskd benchmark --data "$FLOWERS17" --backbone resnet18 --data.image-size $size --data.workers 8 --variants default "${few[@]}" --out "$OUT/loader.json"
}

released() {
  if [ -z "${RELEASED:-}" ]; then echo "-- released: no RELEASED"; return 0; fi
  local few=(); if [ -n "${TINY:-}" ]; then few=(--batch-size 2 --rounds 1 --steps 1); fi
  once released $COMPILES python benchmarks/released_step.py "$RELEASED" --out "$OUT/released.json" "${few[@]}"
}

# run NAME SEED FLAGS...: one training run, taken up where it was left.
run() {
  local name=$1-seed$2 seed=$2; shift 2
  local folder=$STATE/train/$name resume=()
  if [ -e "$STATE/done/train_$name" ]; then return 0; fi
  if [ -d "${RESUME:-}/$name" ] && [ ! -d "$folder" ]; then cp -r "$RESUME/$name" "$folder"; fi
  if [ -e "$folder/config.yaml" ]; then resume=(--resume); fi
  once "train_$name" 120 python -m mixskd train "${TRAIN[@]}" "$@" --seed "$seed" --out "$folder" "${resume[@]}"
  local code=$?
  mkdir -p "$OUT/train/$name"
  for file in config.yaml metrics.csv summary.json; do cp "$folder/$file" "$OUT/train/$name/" 2>/dev/null; done
  if [ $code != 0 ] && [ -n "${CHECKPOINTS:-}" ]; then cp "$folder/checkpoint.pt" "$OUT/train/$name/" 2>/dev/null; fi
  return $code
}

# Methods that forward an image once take the paper's batch of 128; MixSKD's 64 originals and their mixes are as many.
train() {
  run mixskd 0
  run baseline 0 --method baseline --batch-size 128
  run mixskd_released 0 "${RELEASED_NET[@]}" --method.preset released_cifar
  run mixup 0 --method mixup --batch-size 128
  run mixskd_cutmix 0 --method.mix cutmix --method.alpha 1.0
  run mixskd 1
  run mixskd 2
  run baseline 1 --method baseline --batch-size 128
  run baseline 2 --method baseline --batch-size 128
  run mixskd_released 1 "${RELEASED_NET[@]}" --method.preset released_cifar
  run mixup 1 --method mixup --batch-size 128
  run mixskd_cutmix 1 --method.mix cutmix --method.alpha 1.0
}

weights() { # of the best MixSKD run so far, in fp16
  python - "$STATE/train" "$OUT" <<'PY'
import json, sys
from pathlib import Path
from safetensors import safe_open
from safetensors.torch import save_file
runs = [p.parent for p in Path(sys.argv[1]).glob("mixskd*/summary.json")]
if runs:
    best = max(runs, key=lambda run: json.loads((run / "summary.json").read_text())["scores"]["test"]["top1"])
    with safe_open(best / "model.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        halves = {key: x.half() if x.is_floating_point() else x for key, x in tensors.items()}
        save_file(halves, Path(sys.argv[2]) / f"{best.name}-fp16.safetensors", metadata=file.metadata())
    print("-- weights of", best.name)
PY
}

install || exit 1
for stage in "${@:-tests speed loader released train weights}"; do for one in $stage; do $one; done; done
echo "-- $((SECONDS - STARTED)) s; done: $(ls "$STATE/done" | tr '\n' ' ')"
