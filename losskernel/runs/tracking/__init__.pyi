from .tracker import CSVTracker as CSVTracker
from .tracker import Tracker as Tracker
from .wandb_tracker import WandbTracker as WandbTracker

__all__ = ["CSVTracker", "Tracker", "WandbTracker"]
