"""Job files for launchers of other projects, and submission to Slurm; torch-free."""
