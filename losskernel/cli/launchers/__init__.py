"""Jobs of a sweep in other processes: on SLURM, as local processes by submitit, or in joblib's workers."""
