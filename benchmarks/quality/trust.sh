#!/bin/sh
# What methods draw where particles were erased, and what maps from their images promise: figures
# of docs/hallucination.md.
#
#   sh benchmarks/quality/trust.sh FOLDER STRUCTURES
#
# FOLDER gets data sets and results, STRUCTURES holds 1bxn.pdb. An interrupted run goes on. Takes
# about ten minutes of a processor.
set -e
folder=$1
structures=$2
here=$(dirname "$0")
examples=$here/../../docs/examples
results=$here/../results
methods=sum,wiener,dstnet-3

for phantom in 83 101 82; do
    for condition in frame:0.25:erased few:1.25:erased faint:1.25:erased-faint usual:6.25:erased; do
        name=${condition%%:*}
        rest=${condition#*:}
        dstnet simulate phantom:$phantom --recipe "$examples/${rest#*:}.yaml" \
            --dose-per-frame "${rest%:*}" --seed 100 -o "$folder/erased/phantom$phantom-$name"
    done
done
dstnet evaluate "$folder"/erased/* --methods $methods --measures residual --hallucination \
    -o "$folder/erased-results"

dstnet simulate "$structures/1bxn.pdb" --recipe "$examples/reconstruction.yaml" --movies 4 \
    --seed 1 -o "$folder/maps/1bxn"
dstnet evaluate "$folder/maps/1bxn" --methods $methods,dose-weighted-sum --measures residual --reconstruction \
    --structures "$structures" -o "$folder/maps-results"

cp "$folder/erased-results/erased.json" "$results/erased.json"
cp "$folder/maps-results/maps/1bxn.json" "$results/maps-1bxn.json"
