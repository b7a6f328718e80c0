"""`python -m ecgbatch` is the command `ecgbatch`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the folder where the user stands: its redis.py or click.py is not the one that is meant

from ecgbatch.cli import main

sys.exit(main())
