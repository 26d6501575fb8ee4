#!/bin/sh
# Movies of structures that the released weights never saw, for `dstnet evaluate`: 14 as simulated, 14 of strong contrast.
#   benchmarks/quality/held_out.sh STRUCTURES OUTPUT
# STRUCTURES holds the files named below. Each structure gets two movies of 768 x 768 x 24 frames at 1.06 Å/px and 48 e-/Å2, 30 % of the
# field under particles, with drift, local motion, moving ice and damage; three defoci take turns. Contrast and B-factor (Å2) decide how hard
# the movies are: at 1 and 20 a third of the truth is finer than 10 Å, where nothing can be had. A rerun makes what is missing.
set -eu
structures=$1
output=$2
for kind in plain:1:20 strong:2.5:100; do
    name=${kind%%:*}
    values=${kind#*:}
    folder=$output/held-out-$name
    mkdir -p "$folder"
    number=0
    for file in 1bxn.pdb 6vxx.pdb 4zxb.cif 3sn6.pdb 2cg9.pdb 1kx5.pdb 6z6u.pdb; do
        for seed in 0 1; do
            case $((number % 3)) in 0) defocus=9000 ;; 1) defocus=14000 ;; *) defocus=20000 ;; esac
            cat > "$folder/settings.yaml" <<END
shape: [768, 768]
specimen: {coverage: 0.3, contrast: ${values%:*}}
optics: {defocus_angstrom: $defocus, b_factor_angstrom2: ${values#*:}}
END
            dstnet simulate "$structures/$file" --output "$folder" --settings "$folder/settings.yaml" --seed "$seed"
            number=$((number + 1))
        done
    done
done
