"""The command line and the YAML files: to a checked `Config`, and back to overrides."""
