"""One module for each command; `cae_cli.cli` imports the one that is called."""
