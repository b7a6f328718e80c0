"""PgBouncer as Debian packages it, in front of a PostgreSQL server."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import free_port, listens, running, wait_until

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
CONFIGURATION = """\
[databases]
* = host={host} port=5432 user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
"""


@contextmanager
def pgbouncer(folder: Path, host: str) -> Iterator[int]:
    """The port of a PgBouncer in transaction pooling, with fewer connections than it has clients."""
    if PGBOUNCER is None:
        pytest.skip("needs PgBouncer (apt-get install pgbouncer)")
    port = free_port()
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(CONFIGURATION.format(host=host, port=port))
    line = [PGBOUNCER, str(configuration)]
    if os.geteuid() == 0:  # which it refuses to stay
        line += ["--user", Path(host).owner()]
    with running(subprocess.Popen(line, text=True, start_new_session=True, stderr=subprocess.DEVNULL)):
        wait_until(lambda: listens(port))
        yield port
