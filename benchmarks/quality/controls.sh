#!/bin/sh
# What a method draws where there is nothing, at each exposure: its power over that of particles.
#   benchmarks/quality/controls.sh STRUCTURE OUTPUT [dstnet evaluate's options]
# Movies of 768 x 768 x 8 frames of one structure at 1 to 100 e-/Å2; pure noise, shuffled pixels and empty ice of the same exposure.
set -eu
structure=$1
output=$2
shift 2
sets=
for exposure in 1 2 5 10 20 48 100; do
    folder=$output/exposure-$exposure
    dose=$(awk "BEGIN { print $exposure / 8 }")
    mkdir -p "$folder"
    echo 'specimen: {coverage: 0.3}' > "$folder/settings.yaml"
    dstnet simulate "$structure" --output "$folder" --settings "$folder/settings.yaml" --shape 768 768 --frames 8 --dose-per-frame "$dose" --seed 5
    sets="$sets $folder"
done
# shellcheck disable=SC2086  # no blanks in these names
dstnet evaluate $sets --controls --measures residual,noise-power,shuffled-power,ice-power --output "$output/evaluation" "$@"
