#!/usr/bin/env bash
# What the action runs. Inputs come as TSGUARD_… variables and are never made into code. The step summary and the
# annotations are written by tsguard itself; the exit code is the job's.
set -uo pipefail

run=${TSGUARD_RUN:-run.yaml}
command=${TSGUARD_COMMAND:-check}
out=${TSGUARD_OUT:-reports}
python=${TSGUARD_PYTHON:-python}
export KERAS_BACKEND=${KERAS_BACKEND:-torch}

case $command in
  check) export CUDA_VISIBLE_DEVICES= ;; # a pull request is judged on the CPU, whatever the machine has
  train) ;;
  *)
    echo "tsguard: received command '$command'. Expected check or train." >&2
    exit 2
    ;;
esac

if [ -n "${TSGUARD_INSTALL:-}" ]; then
  "$python" -m pip install --quiet --disable-pip-version-check ${TSGUARD_INSTALL} || exit 3
fi

arguments=("$command" "$run" --out "$out")
while IFS= read -r line; do
  if [ -n "$line" ]; then
    arguments+=(--set "$line")
  fi
done <<<"${TSGUARD_SET:-}"
if [ -n "${TSGUARD_BASELINE:-}" ]; then
  arguments+=(--set "baseline=$TSGUARD_BASELINE")
fi

"$python" -m tsguard "${arguments[@]}"
code=$?

if [ -n "${GITHUB_OUTPUT:-}" ]; then
  folder=$(ls -dt "$out"/*/ 2>/dev/null | head -n 1)
  printf 'folder=%s\nexit-code=%s\n' "${folder%/}" "$code" >>"$GITHUB_OUTPUT"
fi
exit "$code"
