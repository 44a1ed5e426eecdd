"""THE WAIST: folders of runs and sweeps, and finding them again."""
