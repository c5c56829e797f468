#!/usr/bin/env bash
# Run every fuzz target of a build folder for some seconds, some at a time; a crash fails and leaves its input there.
set -eu
export build="$1" seconds="$2"
jobs="${3:-1}"

run() {
  target="$1"
  corpus="$build/corpus/$(basename "$target")"
  mkdir -p "$corpus"
  echo "fuzz: $(basename "$target") for $seconds s"
  log="$build/$(basename "$target").log"
  if ! "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="$build/crash-" "$corpus" >"$log" 2>&1; then
    cat "$log"
    return 1
  fi
  echo "fuzz: $(basename "$target"): $(sed -n 's/stat::number_of_executed_units: *//p' "$log") inputs, no crash"
}
export -f run

mapfile -d '' targets < <(find "$build" -type f -executable -name '*_fuzz' -print0 | sort -z)
[ ${#targets[@]} -gt 0 ] || { echo "fuzz: no target in $build" >&2; exit 1; }
# Any failure makes xargs fail, after the others have ended. Names end in a null byte: they may have blanks and quotes.
printf '%s\0' "${targets[@]}" | xargs -0 -P "$jobs" -n 1 bash -euc 'run "$1"' fuzz
