"""From a network's outputs, in units of the noise, to images on the grid and in the units of the
sum: matched to the CTF, with what a linear filter shows given back.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dstnet.alignment import AlignedMovie
from dstnet.core.fourier import resample_mirrored
from dstnet.core.shapes import Image, Shape
from dstnet.enhancement.ctf_matching import TransferMatch, transfer_match
from dstnet.enhancement.preparation import Preparation
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.enhancement.signal_recovery import (
    filled,
    linear_part,
    notes_on,
    sharpened,
    sharpened_domes,
)
from dstnet.network.outputs import OUTPUTS
from dstnet.optics.thon import FINEST_ANGSTROM

# What the darkest thousandth of a field reaches at most where there is no particle, in units of the
# noise, or as a chance. Of dstnet-3: white noise and simulated ice without particles, at 20 to 50
# e-/Å2 and 35 and 80 nm thick, reach 0.14, 0.53 and 0.45; 13 real and simulated fields with
# particles at least 0.19, 1.1 and 0.6.
MOST_OF_NOISE = {"micrograph": 0.16, "contrast": 0.75, "particles": 0.55}
DARKEST = 1e-3
EDGE_PX = 20


@dataclass(frozen=True)
class NoiseUnits:
    """How a sum was prepared and brought to mean zero and unit noise.

    Attributes
    ----------
    total, mean, noise
        sum = mean + noise * total.
    preparation
        What was done to the sum before.
    """

    total: Image
    mean: float
    noise: float
    preparation: Preparation

    @property
    def pixel_size_angstrom(self) -> float:
        """Of the total."""
        return self.preparation.pixel_size_angstrom

    def signal(self, image: Image, shape: Shape) -> Image:
        """A signal in units of the noise, on a grid of `shape` and in the units of the sum."""
        return self.mean + self.noise * resample_mirrored(image, shape)

    def micrograph(self, image: Image, aligned: AlignedMovie) -> Image:
        """An enhanced image as it is given: `signal` on the grid of the movie's sums, with what was
        not for the network to see as the plain sum has it.
        """
        signal = self.signal(self.preparation.shown(image), aligned.shape)
        total = aligned.total
        return self.preparation.put_back(signal, total, aligned.pixel_size_angstrom)


@dataclass(frozen=True)
class Finished:
    """A network's outputs after all steps that look at the whole sum.

    Attributes
    ----------
    images
        By name, in units of the noise.
    match
        What the micrograph was filtered by; None: nothing.
    added
        What was given back to the micrograph.
    notes
        What the user should know.
    """

    images: dict[str, Image]
    match: TransferMatch | None
    added: Image | None
    notes: list[str]


def finish(
    images: Mapping[str, Image],
    units: NoiseUnits,
    total_exposure_e_per_a2: float | None,
    settings: EnhancementSettings,
) -> Finished:
    """Match the micrograph to the CTF, give back what a linear filter shows, fill the contrast.

    Parameters
    ----------
    images
        A network's outputs by name, in units of the noise; "micrograph" is among them.
    units
        Those units, and the network's input.
    total_exposure_e_per_a2
        Of the movie; None where it is not known.
    settings
        Which steps to take.
    """
    done = dict(images)
    pixel = units.pixel_size_angstrom
    match = None
    added = None
    notes = []
    band = units.preparation.band
    if settings.ctf:
        finest = FINEST_ANGSTROM if band is None else band.finest_angstrom
        match = transfer_match(units.total, done["micrograph"], pixel, finest)
    if match is not None:
        done["micrograph"] = match(done["micrograph"])
    if settings.evidence:
        added = linear_part(
            units.total,
            done["micrograph"],
            pixel,
            total_exposure_e_per_a2,
            free_share=units.preparation.free_share,
            band_filled=band is not None,
        )
        done["micrograph"] = done["micrograph"] + added
        notes = notes_on(added, done["micrograph"])
        # The network knows nothing of what was added, most of it noise.
        added_variance = added.square().mean()
        for name, image in done.items():
            if OUTPUTS[name].unit == "error":
                variance = image.square() + added_variance
                done[name] = variance.sqrt()
    if settings.fill and {"contrast", "particles"} <= done.keys():
        dark = units.preparation.dark
        hidden = None if dark is None else dark.on_grid(units.preparation.shape)
        done["contrast"] = filled(done["contrast"], done["particles"], pixel, hidden)
    return Finished(done, match, added, notes)


def empty_notes(images: Mapping[str, Image], requested: Collection[str]) -> list[str]:
    """A line for each output asked for that shows nothing but what noise alone makes of it.

    Parameters
    ----------
    images
        By name, in units of the noise.
    requested
        Which are given.
    """
    notes = []
    for name in requested:
        most = MOST_OF_NOISE.get(name)
        if most is None:
            continue
        # At the field's edge a network sees half of what it sees elsewhere, and doubts less. Images
        # are smooth: every other pixel tells as much.
        inside = slice(EDGE_PX, -EDGE_PX, 2)
        values = images[name][inside, inside].flatten()
        if not len(values):
            continue
        sign = -1 if OUTPUTS[name].unit == "signal" else 1
        darkest = (sign * values).kthvalue(math.ceil(len(values) * (1 - DARKEST))).values
        if float(darkest) < most:
            caption = OUTPUTS[name].caption
            notes.append(f"{caption}: nothing in it stands out of what noise alone gives")
    return notes


def for_pickers(
    images: Mapping[str, Image], units: NoiseUnits, settings: EnhancementSettings
) -> dict[str, Image]:
    """Images by name, the contrast and where particles are sharpened if the settings want it."""
    done = dict(images)
    if not settings.sharpen:
        return done
    for name, sharpen in (("contrast", sharpened), ("particles", sharpened_domes)):
        if name in done:
            done[name] = sharpen(done[name], units.pixel_size_angstrom)
    return done


def on_sum_grid(
    images: Mapping[str, Image],
    units: NoiseUnits,
    aligned: AlignedMovie,
    requested: Collection[str],
) -> dict[str, Image]:
    """The outputs asked for, each on the grid of the sum and in the unit that its row in the table
    of outputs says.
    """
    results = {}
    shape = aligned.shape
    for name in requested:
        image = images[name]
        if name == "micrograph":
            results[name] = units.micrograph(image, aligned)
            continue
        match OUTPUTS[name].unit:
            case "signal":
                results[name] = units.signal(image, shape)
            case "error":
                # Resampling rings at steps: no error is less than the least expected anywhere.
                least = units.noise * float(image.min())
                error = units.noise * resample_mirrored(image, shape)
                results[name] = error.clamp(min=least)
            case "chance":
                chance = resample_mirrored(image, shape).clamp(0, 1)
                # Dark where particles are, as in the micrograph.
                results[name] = -chance
    return results


def needed_heads(
    settings: EnhancementSettings, outputs: Collection[str], available: Collection[str]
) -> list[str]:
    """Which of a network's outputs those asked for are made of.

    Parameters
    ----------
    settings
        Which steps are taken.
    outputs
        What is asked for.
    available
        All that the network gives.
    """
    needed = {"micrograph", *outputs}
    if settings.fill and "contrast" in needed:
        needed.add("particles")
    return [name for name in available if name in needed]
