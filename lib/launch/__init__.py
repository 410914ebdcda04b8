"""From a study to executed notebooks: on this machine or as SLURM jobs, and from notebooks to HTML."""
