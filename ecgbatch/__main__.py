"""`python -m ecgbatch` is the command `ecgbatch`."""

import sys

from ecgbatch.cli import main

sys.exit(main())
