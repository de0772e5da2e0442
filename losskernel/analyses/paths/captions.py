"""What a reader of a page must know about the figures of paths, and by that of the numbers."""

CAPTIONS = {
    "path_map": (
        "Every layer is a point: its kernel over the probes. Lines join what follows on each other; branches are "
        "fine. a: points on a sphere whose angles come nearest to the distances, seen from above their middle. b: "
        "the two directions in which they spread most. Stress: the share of the distances that a map gets wrong; c: "
        "in more dimensions, ringed where 95 % of the stress of one dimension is gone."
    ),
    "path_profiles": (
        "a: distance to the target, and from the geodesic that leads from the inputs to it (off_geodesic). b: "
        "length of each step, and the part of it by which the distance to the target falls (progress; efficiency is "
        "their ratio). c: heading, the angle between a step and the way to the target, and by how much the path "
        "turns at a layer. d: fraction, how far along that geodesic the nearest place to a layer lies. Degrees "
        "here, radians in the tables; `behind` marks layers that are farther from the target than the inputs are."
    ),
    "path_training": (
        "a: sum of the steps from the inputs to the last output. b: straightness, the distance of the ends (chord) "
        "as a share of it. c: distances to the target. Lengths grow with the points recorded: compare only paths of "
        "as many."
    ),
    "path_distances": (
        "The mean distance between two paths where both have gone the same fraction of their lengths, on the "
        "geodesics between layers too; b: a flat map of these distances."
    ),
}
