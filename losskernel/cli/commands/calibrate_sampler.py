"""losskernel-calibrate: settings from the network's curvature, written as a choice of the sampler group."""

from dataclasses import asdict
from pathlib import Path

import yaml
from omegaconf import DictConfig

from losskernel.cli.config import resolved
from losskernel.cli.config.calibrated_choice import subject_of
from losskernel.errors import InputError, require


def calibrate_from(config: DictConfig, folder: Path) -> None:
    """Train or load the network of a configuration, calibrate its sampler, and write the choice.

    Args:
        config: of the run that is to be sampled, with the command's own keys `into` and `rounds`.
        folder: of this calibration: its configuration, the trained weights, calibration.json.

    Raises:
        InputError: the configuration is faulty, or `into` is not the path of a sampler choice.
    """
    from losskernel.cli.build import build
    from losskernel.runs.folder import RunFolder
    from losskernel.runs.run import set_threads, trained
    from losskernel.sampling.calibration import calibrate

    into = Path(config.into)
    require(into.suffix == ".yaml" and into.parent.name == "sampler", f"into={into} must be .../sampler/<name>.yaml")
    study, plain = build(config), resolved(config, throw_on_missing=True)
    schedule = study.schedule
    if schedule is None:
        raise InputError("schedule=none leaves nothing to calibrate; choose schedule=default")
    set_threads(config.threads)
    files = RunFolder(folder)
    files.prepare()
    files.write_text("config.yaml", yaml.safe_dump(plain, sort_keys=False))
    model = trained(study, files)
    options = {"seed": study.seed, "rounds": config.rounds, "trainer": study.trainer, "progress": study.progress}
    result = calibrate(model, study.data, study.sampler, schedule, **options)
    files.write_json("calibration.json", asdict(result))
    values = {f"sampler.{name}": value for name, value in result.sampler.items()}
    values |= {f"schedule.{name}": value for name, value in result.schedule.items()}
    choice = {"sampler": plain["sampler"] | result.sampler, "calibrated": {"values": values, "of": subject_of(plain)}}
    comments = ["@package _global_", f"losskernel-calibrate, {folder}", *result.explanation]
    header = "".join(f"# {line}\n" for line in comments)
    RunFolder(into.parent).write_text(into.name, header + yaml.safe_dump(choice, sort_keys=False, allow_unicode=True))
    print("\n".join(result.explanation))
    weights = study.checkpoint or files.path / "checkpoints" / "trained.pt"
    print(f"written to {into}; use it with sampler={into.stem} (checkpoint={weights} spares the training)")
