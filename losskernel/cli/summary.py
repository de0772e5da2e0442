"""The short table that a run ends with."""

from losskernel.kernel.diagnosis.diagnose import Diagnosis
from losskernel.runs.run import Outcome

HEADLINES = (
    ("separation/within", "mean |R| within {label}"),
    ("separation/across", "mean |R| across {label}"),
    ("separation/noise_floor", "  |R| of Monte-Carlo noise"),
    ("control/separation/within", "  within, at nbeta = 0"),
    ("control/separation/across", "  across, at nbeta = 0"),
    ("separation/ratio", "across / within"),
    ("separation/coupling_across", "coupling R² across {label}"),
    ("separation/ari", "cluster recovery (ARI)"),
    ("control/separation/ari", "  at nbeta = 0"),
    ("separation/purity", "10-neighbour purity"),
    ("separation/purity_null", "  by chance"),
    ("control/separation/purity", "  at nbeta = 0"),
    ("hierarchy/spearman_classes_coupling", "coupling and hierarchy (Spearman)"),
    ("hierarchy/spearman_classes_coupling_p", "  p of the Mantel test"),
    ("hierarchy/partial_coupling", "  features held fixed"),
    ("hierarchy/spearman_classes_penultimate", "  of penultimate features"),
    ("hierarchy/leading_levels_apart", "levels apart, from the closest"),
    ("discovery/dendrogram_purity", "dendrogram purity of the tree"),
    ("discovery/dendrogram_purity_null", "  by chance"),
    ("memorisation/auroc_self_coupling", "mislabelled: AUROC, self-coupling"),
    ("memorisation/auroc_opposition", "  of opposition"),
    ("memorisation/auroc_loss", "  of plain loss"),
    ("memorisation/clustering", "  mislabelled among their nearest"),
    ("memorisation/clustering_chance", "  by chance"),
    ("memorisation/likely_accuracy_mislabelled", "likely label right if mislabelled"),
    ("memorisation/likely_accuracy_clean", "  if not"),
    ("memorisation/twin_nearest", "twins nearest to their twin"),
    ("memorisation/disputed", "labels disputed"),
    ("robustness/adversarial_spearman_self_coupling", "self-coupling and flips (Spearman)"),
    ("robustness/adversarial_partial_self_coupling", "  loss and margins held fixed"),
    ("attribution/lds_covariance", "retraining foretold (LDS), kernel"),
    ("attribution/lds_influence", "  by the influence function"),
    ("attribution/ceiling", "  at most"),
    ("joint/nearest_layer_angle", "loss kernel to the nearest layer"),
    ("joint/placebo_angle", "  with its probes permuted"),
    ("joint/labels_angle", "  to the labels"),
    ("joint/gradient_angle", "  to the loss gradients"),
    ("joint/gradient_angle_largest_localization", "  at the strongest localization"),
    ("joint/gradient_cosine_corrected_largest_localization", "  its cosine without noise"),
    ("joint/bures_spearman", "distances in Bures space (Spearman)"),
    ("joint/left_out", "kernels left out: chains diverged"),
    ("path/length", "length of the path"),
    ("path/untrained_length", "  untrained"),
    ("path/straightness", "straightness"),
    ("path/untrained_straightness", "  untrained"),
    ("path/distance_to_target_inputs", "inputs to the target"),
    ("path/distance_to_target_hidden", "  from the last hidden layer"),
    ("path/distance_to_target_logits", "  from the logits"),
    ("path/distance_to_target_softmax", "  from the softmax"),
    ("spectrum/effective_rank", "effective rank of R"),
    ("complexity/llc", "learning coefficient (LLC)"),
    ("convergence/rhat", "worst R-hat"),
    ("convergence/ess_kernel", "least effective draws"),
)

# What is named at the end; a sheet of suspects is what an audit is run for.
FILES = (
    "report.html",
    "metrics.json",
    "traces.zarr",
    "figures",
    "tables",
    "figures/suspects.html",
    "tables/memorisation_suspects.csv",
)


def summary(outcome: Outcome, label: str) -> str:
    """Return verdict, headline numbers with standard errors, and the paths of what was made."""
    lines = ["nothing was sampled: points only"] if outcome.diagnosis is None else _verdict(outcome.diagnosis)
    if outcome.before:
        return "\n".join([f"{outcome.folder} has finished before; nothing was done", *lines])
    lines += [f"  replaced: {each}" for each in outcome.replaced]
    for key, words in HEADLINES:
        if key in outcome.metrics and outcome.metrics[key] is not None:
            error = outcome.metrics.get(f"{key}_se")
            spread = "" if error is None else f" ± {error:.2g}"
            lines.append(f"  {words.format(label=label):<34} {outcome.metrics[key]:.4g}{spread}")
    for name in FILES:
        if (outcome.folder / name).exists():
            lines.append(f"  {name.split('/')[-1].removeprefix('memorisation_'):<13} {outcome.folder / name}")
    return "\n".join(lines)


def _verdict(diagnosis: Diagnosis) -> list[str]:
    lines = [f"diagnosis: {diagnosis.verdict}", *(f"  - {reason}" for reason in diagnosis.reasons)]
    return [*lines, f"  first: {diagnosis.remedy}"] if diagnosis.remedy else lines
