"""Where repsim 0.8 is wrong: one small experiment a row, what it gives, what is right, and why that is right."""

import warnings

import torch
from findings import RNG
from of_distances import affine_covariance, close_points, cross_kernel, masked_bias, masked_white, translation
from of_geometry import geodesic_of_near, low_rank, projections, shape_curvature, shape_transport, vertical, whitened
from of_summaries import defaults, means, spherical_maps

EXPERIMENTS = (
    masked_bias,
    masked_white,
    close_points,
    translation,
    cross_kernel,
    affine_covariance,
    vertical,
    shape_curvature,
    shape_transport,
    low_rank,
    whitened,
    geodesic_of_near,
    projections,
    means,
    spherical_maps,
    defaults,
)


def main() -> None:
    """Run them all and print a table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| what | repsim | right | because |\n|---|---|---|---|")
    for experiment in EXPERIMENTS:
        RNG.bit_generator.state = type(RNG.bit_generator)(0).state  # a row does not depend on those before it
        for row in experiment():
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
