#!/usr/bin/env bash
# Everything that only a GPU can say, in one command of a few minutes: builds the CUDA kernels for this machine's GPU, runs the tests
# marked gpu, compares the bits of CPU and GPU and of the matrix units with their model, and times kernels beside
# cuBLAS, torch and CuPy, and traces where calls spend their time. Writes gpu_check.json, gpu_check.md and gpu_profile.md into
# the folder given (default: the current one).
# Needs nvcc 13, CuPy, torch, CMake, ninja, pybind11, scikit-build-core and pytest for Python 3.10 or later; no network.
set -euo pipefail
out=$(mkdir -p "${1:-.}" && cd "${1:-.}" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python=${PYTHON:-python3}

capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d . | tr -d ' ')
start=$SECONDS
"$python" -m pip install --quiet --no-index --no-deps --no-build-isolation --target "$scratch/site" \
  -C build-dir="$scratch/build" -C cmake.define.GRADKERN_CUDA=ON \
  -C cmake.define.GRADKERN_CUDA_ARCHITECTURES="$capability-real" . \
  > "$scratch/build.log" 2>&1 || { tail -60 "$scratch/build.log"; exit 1; }
echo "built for sm_$capability in $((SECONDS - start)) s"
export PYTHONPATH="$scratch/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

# What fails is in the report: the rest is still worth knowing.
status=0
timeout 240 "$python" -m pytest -m gpu -q -n 4 -p no:cacheprovider --junitxml="$scratch/tests.xml" \
  > "$out/gpu_tests.log" 2>&1 || status=$?
tail -25 "$out/gpu_tests.log"
"$python" benchmarks/gpu_check.py --tests "$scratch/tests.xml" --out "$out" || status=$?
timeout 120 "$python" benchmarks/gpu_profile.py --out "$out" || status=$?
exit "$status"
