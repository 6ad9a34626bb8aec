"""``python -m sublevel``."""

from sublevel.cli import main

if __name__ == "__main__":
    main()
