#!/usr/bin/env bash
# Run every fuzz target of a build folder for some seconds; a crash fails and leaves its input there.
set -eu
build="$1" seconds="$2" found=0
while IFS= read -r target; do
  found=1
  corpus="$build/corpus/$(basename "$target")"
  mkdir -p "$corpus"
  echo "fuzz: $(basename "$target") for $seconds s"
  "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="$build/crash-" "$corpus"
done < <(find "$build" -type f -executable -name '*_fuzz' | sort)
[ "$found" = 1 ] || { echo "fuzz: no target in $build" >&2; exit 1; }
