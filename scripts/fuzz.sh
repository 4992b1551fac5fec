#!/usr/bin/env bash
# Runs each fuzz target of the module for the time given (default 10s): scripts/fuzz.sh [FUZZTIME]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
n=0
while IFS=: read -r file func; do
  target=$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' <<<"$func")
  echo "== $(dirname "$file") $target"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "${1:-10s}" "./$(dirname "$file")"
  n=$((n + 1))
done < <(git ls-files -co --exclude-standard '*_test.go' | xargs grep -Ho '^func Fuzz[A-Za-z0-9_]*' || true)
echo "$n fuzz targets"
