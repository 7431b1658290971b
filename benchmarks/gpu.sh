#!/bin/bash
# All that a machine with a GPU is asked for, the most valuable first, in as many calls as it takes:
#
#   OUT=out bash benchmarks/gpu.sh [STAGE ...]
#   CIFAR100=cifar100.npz OUT=out bash benchmarks/gpu.sh [STAGE ...]
#
# OUT        after each stage, and every 20 s of a training, OUT/results.tar.gz holds all results so far: JSON, logs,
#            metrics, summaries. The fp16 weights of the best MixSKD run lie beside it, in parts of 15 MiB
# CIFAR100   CIFAR-100 under MedMNIST's keys, or what its parts CIFAR100.part* begin with, for the trainings
# PYTHON     the interpreter (python3)
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
# TINY=1     shrinks everything, to try the script on a CPU: random images and one seed; three minutes of CPU time in all
#
# Stages: speed checks variants released loader train weights tests (all, in this order, by default). With two calls of
# ten minutes, the first takes those up to released, the second the others.
set -u
cd "$(dirname "$0")/.." || exit 1
STARTED=$SECONDS LIMIT=${LIMIT:-570} STATE=${STATE:-runs/gpu} OUT=${OUT:?where results go} PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH} PIP_BREAK_SYSTEM_PACKAGES=1
mkdir -p "$STATE/done" "$STATE/train" "$STATE/results" "$OUT"
OUT=$(realpath "$OUT") STATE=$(realpath "$STATE")
RESULTS=$STATE/results
# What was compiled once is there for the next call; it is too much for OUT.
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$STATE/inductor}
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$STATE/triton}
# The seconds that a measurement or a group of tests needs if it compiles.
COMPILES=240
# The seconds after which it is stopped, so that one that hangs leaves time for others.
MOST=300

left() { echo $((LIMIT - (SECONDS - STARTED))); }

pack() { # all results so far as one file
  tar -C "$RESULTS" -czf "$STATE/$BASHPID.tar.gz" . && mv "$STATE/$BASHPID.tar.gz" "$OUT/results.tar.gz"
}

# once NAME NEEDED MOST COMMAND...: runs COMMAND for at most MOST seconds, unless it has succeeded before, or fewer than
# NEEDED seconds are left.
once() {
  local name=$1 needed=$2 most=$3; shift 3
  if [ -e "$STATE/done/$name" ]; then return 0; fi
  if [ "$(left)" -lt "$needed" ]; then echo "-- $name: $(left) s left, next time"; return 1; fi
  if [ "$most" -gt $(($(left) - 20)) ]; then most=$(($(left) - 20)); fi
  echo "-- $name"
  # With --foreground, COMMAND gets the signal once. A second one would end a run before it is saved.
  timeout --foreground --signal=TERM --kill-after=45 "$most" "$@" > "$RESULTS/$name.log" 2>&1
  local code=$?
  tail -n 25 "$RESULTS/$name.log"
  if [ $code = 0 ]; then touch "$STATE/done/$name"; else echo "-- $name: exit code $code"; fi
  pack
  return $code
}

compiling() { local name=$1; shift; once "$name" $COMPILES $MOST "$@"; }

# torch (with jinja2), torchvision and NumPy are expected to be there. matplotlib draws figures, and no stage has any.
NEEDED="msgspec=msgspec yaml=pyyaml rich=rich safetensors=safetensors scipy=scipy sklearn=scikit-learn"
NEEDED="$NEEDED torchmetrics=torchmetrics"
FOR_TESTS="pytest=pytest pytest_timeout=pytest-timeout xdist=pytest-xdist hypothesis=hypothesis"

lacking() { # those of MODULE=PACKAGE... that this Python cannot import
  "$PYTHON" - "$@" <<'PY'
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
    "$PYTHON" -m pip install --quiet --no-index --find-links "$WHEELS" $missing
  fi
  missing=$(lacking $NEEDED)
  if [ -n "$missing" ]; then echo "-- this Python lacks $missing; give a folder of wheels as WHEELS"; return 1; fi
}

# shellcheck disable=SC2086
on_gpu() { # on_gpu NAME WORDS...: tests on a GPU
  local name=$1 missing; shift; missing=$(lacking $FOR_TESTS)
  if [ -n "$missing" ]; then echo "-- $name: this Python lacks $missing"; return 0; fi
  compiling "$name" "$PYTHON" -m pytest -n 0 -m gpu -q -rs "$@"
}

# Files are named, because others import what this machine may lack.
checks() { # MixSKD and PS-KD in bf16: recorded steps agree with eager ones, wait for nothing and compile once
  on_gpu checks tests/training/test_step.py -k "(mixskd or pskd) and bf16 and (agrees or graphs)"
}

# shellcheck disable=SC2046
tests() { # all others, in parts, as each compiles much
  on_gpu tests_agree tests/training/test_step.py -k "agrees or updates"
  on_gpu tests_step tests/training/test_step.py -k "not agrees and not updates"
  on_gpu tests $(grep -rlE --include='*.py' '^@pytest\.mark\.gpu' tests | grep -vE 'training/test_step.py' | sort)
}

data() { # DATA, for the trainings; fails without CIFAR100
  if [ -n "${TINY:-}" ]; then tiny_data; return; fi
  if ls "${CIFAR100:-}".part* > /dev/null 2>&1; then
    cat "$CIFAR100".part* > "$STATE/cifar100.npz"; CIFAR100=$STATE/cifar100.npz
  fi
  if [ ! -f "${CIFAR100:-}" ]; then echo "-- train: CIFAR100 is no file"; return 1; fi
  DATA=$(realpath "$CIFAR100")
}

tiny_data() { # random images, two of each of 100 classes
  DATA=$STATE/tiny.npz
  "$PYTHON" - "$DATA" <<'PY'
import sys
import numpy as np
images, labels = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8), np.arange(200) % 100
np.savez(sys.argv[1], train_images=images, train_labels=labels, test_images=images, test_labels=labels)
PY
}

# The recipe of CIFAR-100, timed on as many random images.
SPEED=(cifar100 --data synthetic --skip-startup) TRAIN=(cifar100 --run.evaluate-every 5 --run.checkpoint-every-epochs 20)
ROUNDS=20 RELEASED_NET=(--backbone cifar_resnet18_linear_stem)
if [ -n "${TINY:-}" ]; then
  SPEED+=(--backbone wrn_10_1 --batch-size 8) ROUNDS=1 RELEASED_NET=() COMPILES=60 MOST=3000
  TRAIN+=(--backbone wrn_10_1 --epochs 2 --optim.warmup-epochs 0)
fi

# What decides which variants there are: "gpu", "eager" for a GPU without a compiler, or "cpu".
machine() {
  "$PYTHON" - <<'PY'
import torch
from mixskd.training.engine import why_not_compile
gpu = torch.cuda.is_available()
print("cpu" if not gpu else "eager" if why_not_compile(torch.device("cuda")) else "gpu")
PY
}

timed() { # timed NAME VARIANTS FLAGS...
  local name=$1 variants=$2; shift 2
  if [ -n "${TINY:-}" ]; then variants=${variants/plain,default/default}; fi # a process less
  compiling "$name" "$PYTHON" -m mixskd benchmark "${SPEED[@]}" "$@" --variants "$variants" --rounds $ROUNDS --out "$RESULTS/$name.json"
}

speed() { timed speed_mixskd plain,default; }

# One that fails does not stop the others. plain and default stand in each, so that all have both to compare with.
variants() {
  local first second
  case $(machine) in
    gpu) first=plain,low_precision,eager,without_graphs,default
         second=plain,default,without_compile,without_fused ;;
    eager) first=plain,low_precision,without_graphs,default second=plain,default,without_fused ;;
    *) first=plain,low_precision,default second=plain,default,without_fused ;;
  esac
  timed speed_mixskd_with "$first"
  timed speed_mixskd_without "$second"
  timed speed_baseline plain,default --method baseline
  timed speed_wrn plain,default --backbone wrn_16_2
}

loader() {
  if [ ! -d "${FLOWERS17:-}" ]; then echo "-- loader: FLOWERS17 is no folder"; return 0; fi
  local size=224 workers=8 few=(); if [ -n "${TINY:-}" ]; then size=64 workers=1 few=(--batch-size 4 --rounds 1); fi
  compiling loader "$PYTHON" -m mixskd benchmark --skip-startup --data "$FLOWERS17" --backbone resnet18 --data.image-size $size --data.workers $workers --variants default "${few[@]}" --out "$RESULTS/loader.json"
}

released() {
  if [ -z "${RELEASED:-}" ]; then echo "-- released: no RELEASED"; return 0; fi
  local few=(); if [ -n "${TINY:-}" ]; then few=(--batch-size 2 --rounds 1 --steps 1); fi
  compiling released "$PYTHON" benchmarks/released_step.py "$RELEASED" --out "$RESULTS/released.json" "${few[@]}"
}

keep() { # keep NAME: the small files of a run
  mkdir -p "$RESULTS/train/$1"
  for file in config.yaml metrics.csv summary.json; do cp "$STATE/train/$1/$file" "$RESULTS/train/$1/" 2>/dev/null; done
}

# run NAME SEED FLAGS...: one training run, taken up where it was left. Its seconds an epoch and their projection are
# known from the second epoch on.
run() {
  local name=$1-seed$2 seed=$2; shift 2
  local folder=$STATE/train/$name resume=()
  if [ -e "$STATE/done/train_$name" ]; then return 0; fi
  if [ -n "${TINY:-}" ] && [ "$seed" != 0 ]; then return 0; fi
  if [ -e "$folder/config.yaml" ]; then resume=(--resume); fi
  while sleep 20; do keep "$name"; pack; done > /dev/null 2>&1 &
  local copying=$!
  once "train_$name" 60 100000 "$PYTHON" benchmarks/timed_train.py "$RESULTS/seconds_$name.json" --data "$DATA" "${TRAIN[@]}" "$@" --seed "$seed" --out "$folder" "${resume[@]}"
  local code=$?
  kill $copying; wait $copying 2>/dev/null
  keep "$name"; pack
  return $code
}

# Methods that forward an image once take the paper's batch of 128; MixSKD's 64 originals and their mixes are as many.
train() {
  data || return 0
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
  "$PYTHON" - "$STATE/train" "$STATE" <<'PY'
import json, sys
from pathlib import Path
runs = [p.parent for p in Path(sys.argv[1]).glob("mixskd*/summary.json")]
if runs:
    from safetensors import safe_open
    from safetensors.torch import save_file
    best = max(runs, key=lambda run: json.loads((run / "summary.json").read_text())["scores"]["test"]["top1"])
    with safe_open(best / "model.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        halves = {key: x.half() if x.is_floating_point() else x for key, x in tensors.items()}
        save_file(halves, Path(sys.argv[2]) / "weights-fp16.safetensors", metadata=file.metadata())
    print("-- weights of", best.name)
PY
  if [ -e "$STATE/weights-fp16.safetensors" ]; then
    split -b 15M "$STATE/weights-fp16.safetensors" "$OUT/weights-fp16.safetensors.part-"
  fi
}

install || exit 1
"$PYTHON" -c 'import sys, torch; print(sys.version, torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name())' | tee "$RESULTS/machine.txt"
nvidia-smi > "$RESULTS/nvidia-smi.txt" 2>&1
for stage in "${@:-speed checks variants released loader train weights tests}"; do for one in $stage; do $one; done; done
pack
echo "-- $((SECONDS - STARTED)) s; done: $(ls "$STATE/done" | tr '\n' ' ')"
