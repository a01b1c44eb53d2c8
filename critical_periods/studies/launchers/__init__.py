"""Where a study's segments are trained: on this machine, or by Slurm on a cluster."""
