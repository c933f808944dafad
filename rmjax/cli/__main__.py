"""`python -m rmjax.cli`, the same as `rmjax`."""

import sys

from rmjax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
