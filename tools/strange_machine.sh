#!/usr/bin/env bash
# The tests on machines unlike the author's: a line for each condition.
#
#   tools/strange_machine.sh [condition ..]      all of them if none is named
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

here=$(cd "$(dirname "$0")/.." && pwd)
room=$(mktemp -d "${TMPDIR:-/tmp}/strange machine é.XXXXXX")
clone="$room/a clone with blänks"
chmod 755 "$room"
git clone -q "$here" "$clone" || exit 2
cd "$clone" || exit 2

# With VENV nothing is installed: make takes its mark as made, and Python this clone as the package.
if [ -n "${VENV:-}" ]; then
  export PATH="$VENV/bin:$PATH" PYTHONPATH="$clone" MAKEFLAGS="-o .venv/.ok"
else
  make .venv/.ok || exit 2
fi
two_cores=()
if command -v taskset > /dev/null && [ "$(nproc)" -gt 2 ]; then two_cores=(taskset -c 0,1); fi

busy=()
quiet() {
  [ ${#busy[@]} -eq 0 ] || kill "${busy[@]}" 2> /dev/null
  busy=()
}
trap quiet EXIT

changed() { git -c safe.directory='*' status --porcelain | wc -l; }

# run NAME PREFIX..: COMMAND under a prefix, a line of the table
run() {
  local name=$1 start=$SECONDS result
  shift
  "${two_cores[@]}" "$@" bash -c "$COMMAND" > "$room/$name.log" 2>&1 < /dev/null \
    && result=passed || result="failed, $?"
  [ "$result" = passed ] || failures=$((failures + 1))
  line "$name" "$result" $((SECONDS - start)) "$(changed)"
}

line() { printf '%-10s %-50s %-24s %8s %8s\n' "$1" "$COMMAND" "$2" "$3" "$4"; }

failures=0
printf '%-10s %-50s %-24s %8s %8s\n' condition command result seconds changed
for condition in "${@:-${ALL[@]}}"; do
  case $condition in
    plain) run plain env ;;
    busy) # two processes that do nothing but count
      for _ in 1 2; do
        "${two_cores[@]}" bash -c 'while :; do :; done' &
        busy+=($!)
      done
      run busy env
      quiet
      ;;
    locale) run locale env LANG=C LC_ALL=C ;;
    home) run home env -u HOME ;;
    user) # one who may write in the clone alone, and has no home
      if [ "$(id -u)" != 0 ]; then
        run user env HOME=/nonexistent
      elif ! $AS python -c 'import pytest' 2> "$room/user.log"; then
        line user "skipped: cannot read VENV" 0 "$(changed)"
      else
        chown -R $NOBODY:$NOBODY "$clone"
        run user $AS env HOME=/nonexistent
        chown -R 0:0 "$clone"
      fi
      ;;
    default | avx2) run "$condition" env ATEN_CPU_CAPABILITY="$condition" ;;
    *)
      echo "condition '$condition': expected one of ${ALL[*]}" >&2
      exit 2
      ;;
  esac
done
if [ $failures -gt 0 ]; then
  echo "what they said is in $room"
  exit 1
fi
cd / && rm -rf "$room"
