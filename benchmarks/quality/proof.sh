#!/bin/sh
# Everybody on the same movies: 28 simulated ones of proteins that the released weights never saw, and real micrographs of four specimens.
#   benchmarks/quality/proof.sh STRUCTURES REAL SCORES OUTPUT [dstnet evaluate's options: --relion PROGRAM --topaz PROGRAM --janni FILE ...]
# REAL holds apoferritin (NAME_average.mrc, NAME_frame.mrc, NAME_picks.csv), beta_galactosidase, ribosome and trpv1 (NAME.mrc, NAME_picks.csv,
# set.json); SCORES is apoferritin_scores.py, which takes one frame out of an average: both are scored.
set -eu
structures=$1
real=$2
scores=$3
output=$4
shift 4
"$(dirname "$0")/held_out.sh" "$structures" "$output"
python "$scores" "$real/apoferritin" --write-rest "$output"
for kind in rest frame; do
    folder=$output/apoferritin-$kind
    mkdir -p "$folder"
    mv "$output/$kind"/*.mrc "$folder"
    cp "$real"/apoferritin/*_picks.csv "$folder"
    echo '{"diameter_angstrom": 122}' > "$folder/set.json"
done
sets="$output/held-out-strong $output/held-out-plain $output/apoferritin-rest $output/apoferritin-frame"
picks=
for specimen in beta_galactosidase ribosome trpv1; do
    sets="$sets $real/$specimen"
    picks="$picks --picks $real/$specimen"
done
# shellcheck disable=SC2086  # no blanks in these names
dstnet evaluate $sets --picks "$output/apoferritin-rest" $picks --output "$output/evaluation" "$@"
