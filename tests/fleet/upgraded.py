"""`lapse`, of another version: `python upgraded.py worker --config …`."""

import lapse

lapse.__version__ = "99.0.0"

from lapse.cli import main  # noqa: E402  # after the version

if __name__ == "__main__":
    main()
