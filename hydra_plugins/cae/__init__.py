"""What cae adds to Hydra: a launcher and a sweeper. Hydra imports this on the way to every command."""
