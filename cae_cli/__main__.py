"""``python -m cae_cli`` is ``cae``."""

from cae_cli.cli import main

if __name__ == "__main__":
    main()
