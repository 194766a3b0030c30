#!/usr/bin/env bash
# The tests on machines unlike the author's: a line for each condition.
#
#   tools/strange_machine.sh [condition ..]      all of them if none is named
#   tools/strange_machine.sh busy+locale+home    several at once
#   PYTHON=python3.12 tools/strange_machine.sh   the interpreter of which the environment is made
#   VENV=/path/to/venv tools/strange_machine.sh  an environment that is there, instead of a new one
#   COMMAND="pytest -q tests/test_ace.py" tools/strange_machine.sh locale home
#
# Every condition runs in one fresh clone of the last commit, whose path has blanks and accents, on
# two cores. Only COMMAND's own files change; what git sees of them is counted in the last column.
set -u

ALL=(plain busy locale home user default avx2)
NOBODY=65534
AS=${AS:-setpriv --reuid=$NOBODY --regid=$NOBODY --clear-groups}
COMMAND=${COMMAND:-make test}

[ $# -gt 0 ] || set -- "${ALL[@]}"
for name in ${*//+/ }; do
  if [[ " ${ALL[*]} " != *" $name "* ]]; then
    echo "condition '$name': expected one of ${ALL[*]}, or several joined by +" >&2
    exit 2
  fi
done

here=$(cd "$(dirname "$0")/.." && pwd)
room=$(mktemp -d "${TMPDIR:-/tmp}/strange machine é.XXXXXX")
clone="$room/a clone with blänks"
chmod 755 "$room"
git clone -q "$here" "$clone" || exit 2
cd "$clone" || exit 2

# With VENV nothing is installed: make takes its mark as made, and Python this clone as the package.
if [ -n "${VENV:-}" ]; then
  export PYTHONPATH="$clone" MAKEFLAGS="-o .venv/.ok"
else
  make .venv/.ok || exit 2
  VENV="$clone/.venv"
fi
export PATH="$VENV/bin:$PATH"
two_cores=()
if command -v taskset > /dev/null && [ "$(nproc)" -gt 2 ]; then two_cores=(taskset -c 0,1); fi

busy=()
quiet() {
  [ ${#busy[@]} -eq 0 ] || kill "${busy[@]}" 2> /dev/null
  busy=()
}
trap quiet EXIT

# everything of the clone but its environment, whose files may be links to a cache
own() { find "$clone" -path "$clone/.venv" -prune -o -exec chown -h "$1:$1" {} +; }

changed() { git -c safe.directory='*' status --porcelain | wc -l; }

# line CONDITION RESULT SECONDS
line() { printf '%-26s %-16s %-28s %8s %8s\n' "$1" "$COMMAND" "$2" "$3" "$(changed)"; }

# run CONDITION PREFIX..: COMMAND under a prefix, a line of the table
runs=0
run() {
  local name=$1 start=$SECONDS result
  shift
  runs=$((runs + 1))
  "${two_cores[@]}" "$@" bash -c "$COMMAND" > "$room/$runs $name.log" 2>&1 < /dev/null \
    && result=passed || result="failed, $?"
  [ "$result" = passed ] || failures=$((failures + 1))
  line "$name" "$result" $((SECONDS - start))
}

# under CONDITION: one of ALL, or several of them joined by +
under() {
  local unset=() set=() nobody=() name
  for name in ${1//+/ }; do
    case $name in
      busy) # two processes that do nothing but count
        for _ in 1 2; do
          "${two_cores[@]}" bash -c 'while :; do :; done' &
          busy+=($!)
        done
        ;;
      locale) set+=(LANG=C LC_ALL=C) ;;
      home) unset+=(-u HOME) ;;
      user) # one who may write in the clone alone, and has no home
        set+=(HOME=/nonexistent)
        [ "$(id -u)" != 0 ] || nobody=($AS)
        ;;
      default | avx2) set+=(ATEN_CPU_CAPABILITY="$name") ;;
    esac
  done
  if [ ${#nobody[@]} -gt 0 ]; then
    own $NOBODY
    if ! "${nobody[@]}" python -c 'import pytest' 2> "$room/user.log"; then
      line "$1" "skipped: cannot read python" 0
      tail -n 1 "$room/user.log"
      own 0
      quiet
      return
    fi
  fi
  run "$1" "${nobody[@]}" env "${unset[@]}" "${set[@]}"
  quiet
  [ ${#nobody[@]} -eq 0 ] || own 0
}

failures=0
printf '%-26s %-16s %-28s %8s %8s\n' condition command result seconds changed
for condition in "$@"; do under "$condition"; done
if [ $failures -gt 0 ]; then
  echo "what they said is in $room"
  exit 1
fi
cd / && rm -rf "$room"
