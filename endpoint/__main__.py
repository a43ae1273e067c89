"""`python -m endpoint` is the command `mplsec`."""

import sys

from endpoint.cli import main

sys.exit(main())
