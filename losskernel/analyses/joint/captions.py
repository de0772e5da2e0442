"""What a reader of a page must know about the figures of a joint space, and by that of the numbers."""

CAPTIONS = {
    "joint_map": (
        "Inputs, layers, labels, gradients and loss kernels over the same probes, as points of one space (angular "
        "CKA, U-centred): spherical scaling, seen from above the points' middle. Distances are raw, with sampling "
        "noise in them; the noise floor is the angle at which noise alone puts two samples of one kernel."
    ),
    "joint_nearest": (
        "Angles in radians between every kernel of losses and every layer of the network with the same weights; "
        "1.57: nothing in common. The last row is the placebo: the run's kernel with its probes permuted."
    ),
    "joint_sweep": (
        "With rising localization the loss kernel goes to the Gram matrix of loss gradients, as 1 / γ, whatever the "
        "network. Raw angles cannot fall below the noise floor; those without sampling noise come from the cosine "
        "divided by the reliabilities of both kernels (cosine_corrected), which chance may lift above 1: an angle "
        "of 0."
    ),
    "joint_labels": (
        "Cosine of each layer with a kernel: raw, and between the directions in which both leave the kernel of the "
        "labels (beyond). 0: nothing in common but the classes; below 0: they leave the labels on opposite sides. "
        "By chance: probes relabelled."
    ),
    "joint_training": (
        "The loss kernel, the gradients and the last layers at the weights kept along training: a, distance to the "
        "labels; b, to their own end; c, angle between the loss kernel's velocity and theirs, after parallel "
        "transport, where both steps stand above the noise."
    ),
}
