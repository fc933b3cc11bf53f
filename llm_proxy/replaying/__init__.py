"""`runs replay`: a recorded run's replies for a live agent, and where that agent asks something else."""
