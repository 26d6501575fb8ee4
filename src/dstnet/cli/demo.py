"""dstnet demo: the main job on a movie that the package makes itself."""

from dstnet.cli.options import Device, Output


def demo(*, output: Output, device: Device = None) -> int:
    """Make a movie of the built-in phantom structure, enhance it with the released weights, and
    draw the result as OUTPUT/demo.png.

    The movie is handed over as a file, so that nothing but its frames reaches the network; the
    truth is read only for the picture.
    """
    import numpy as np

    from dstnet.cli.enhance import enhance
    from dstnet.cli.movies import MovieOptions
    from dstnet.cli.run_options import MovieRunOptions
    from dstnet.cli.simulate import simulate
    from dstnet.io import open_movie
    from dstnet.metrics.image import residual_after_best_shift
    from dstnet.pipeline.naming import result_name
    from dstnet.pipeline.products import product_path
    from dstnet.report.picture import picture
    from dstnet.simulation import SimulationSettings

    print("making a movie of the built-in phantom ...", flush=True)
    made = SimulationSettings()  # those of a simulation that asks for nothing else
    again = MovieRunOptions(overwrite=True)
    simulate(output=output, run=again)
    movie = next((output / "movies").glob("*.tif"))
    taken = MovieOptions(dose_per_frame=made.exposure_e_per_a2)
    code = enhance([str(movie)], output=output, movie=taken, device=device, run=again)
    if code:
        return code
    results = {
        n: open_movie(product_path(output, result_name(movie), f"_{n}.mrc"))
        for n in ("aligned", "dw", "enhanced")
    }
    truth = open_movie(output / "truth" / f"{movie.stem}_clean.mrc").frame(0)
    images = {n: m.frame(0) for n, m in results.items()}
    residual = {n: residual_after_best_shift(i, truth) for n, i in images.items()}
    single = open_movie(movie).frame(0).numpy()
    picture(
        [
            (f"one raw frame, {made.exposure_e_per_a2:g} e⁻/Å²", single),
            (
                (
                    f"motion-corrected sum, {made.frames * made.exposure_e_per_a2:g} e⁻/Å²"
                    f" (residual {residual['aligned']:.2f})"
                ),
                images["aligned"].numpy(),
            ),
            (f"dstnet (residual {residual['enhanced']:.2f})", images["enhanced"].numpy()),
            ("truth", np.asarray(truth)),
        ],
        output / "demo.png",
        pixel_size_angstrom=results["aligned"].pixel_size_angstrom,
        title=(
            "A synthetic movie of the built-in phantom, never seen in training; residual: share of"
            " the truth not explained"
        ),
    )
    for name, value in residual.items():
        print(f"residual energy against the truth, {name}: {value:.3f}")
    print(f"picture in {output / 'demo.png'}")
    return 0
