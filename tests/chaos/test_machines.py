"""Two machines and their servers on one network, over TLS; one is cut off in mid-job, and comes back."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from commands import LINE, Command, ends, undisturbed, wait_until, workers
from machines import Machine, Network, missing, network
from places import FAULTY_WORKER
from tls import make_certificate, postgresql_over_tls, redis_over_tls

from ecgbatch.records.synthetic import write_archive

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

RECORDS = 2400
OUTAGE_SECONDS = 90
LEASE_SECONDS = 30
PASSWORD = "p@ss/w:rd %41"


@dataclass(frozen=True)
class Cluster:
    """The network, its two machines, and the command as it is run on each."""

    network: Network
    machines: tuple[Machine, Machine]
    commands: tuple[Command, Command]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What the second machine, which is never cut off, is told by SQL."""
        return self.commands[1].rows(sql)

    def now(self) -> str:
        """The database's time."""
        return str(self.rows("SELECT clock_timestamp() AS now")[0]["now"])


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if reason := missing("setpriv"):
        pytest.skip(reason)
    with ExitStack() as stack:
        # Not below pytest's folder, which is closed to the user that PostgreSQL runs as.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        made, (servers, *machines) = stack.enter_context(network("servers", "one", "two"))
        certificate = make_certificate(folder, f"IP:{servers.address}")
        inside = servers.inside
        stack.enter_context(redis_over_tls(certificate, 6379, PASSWORD, "--bind", servers.address, inside=inside))
        stack.enter_context(postgresql_over_tls(certificate, servers.address, PASSWORD, inside))
        (folder / "secret").write_text(PASSWORD)
        addresses = {
            "ECGBATCH_DATABASE_URL": f"postgresql://ecgbatch@{servers.address}/postgres"
            f"?sslmode=verify-full&sslrootcert={certificate}",
            "ECGBATCH_DATABASE_PASSWORD_FILE": f"{folder}/secret",
            "ECGBATCH_REDIS_URL": f"rediss://{servers.address}:6379/0?ssl_ca_certs={certificate}",
            "ECGBATCH_REDIS_PASSWORD_FILE": f"{folder}/secret",
        }
        commands = [_command(folder, machine, addresses) for machine in machines]
        commands[0]("db", "upgrade")
        yield Cluster(made, tuple(machines), tuple(commands))  # type: ignore[arg-type]


def _command(folder: Path, machine: Machine, addresses: dict[str, str]) -> Command:
    own = folder / machine.name
    own.mkdir()
    settings = {
        "TMPDIR": str(own),
        "ECGBATCH_CHUNK_SIZE": "64",
        "ECGBATCH_QUEUE_CHUNKS": "2",  # what was lost is then not last in a long queue, where either may take it
        "ECGBATCH_LEASE_SECONDS": str(LEASE_SECONDS),
        "FAULTS_SLOW": "0.1",
    }
    command = Command(own, [*machine.inside, *LINE], **addresses, **settings)
    command.worker_script = FAULTY_WORKER
    return command


def test_one_is_cut_off_and_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    """Each record once, none of the others' by whom had lost the lease, and who comes back works on."""
    write_archive(tmp_path / "archive", RECORDS)
    one, two = cluster.commands
    two("enqueue", tmp_path / "archive")
    by_one = "FROM predictions WHERE worker LIKE '%@one:%'"
    with workers(one, processes=1) as first, workers(two, processes=1):
        wait_until(lambda: cluster.rows(f"SELECT COUNT(*) AS n {by_one}")[0]["n"] > 64)
        held = _cut_off_in_mid_chunk(cluster)
        cut = cluster.now()
        time.sleep(OUTAGE_SECONDS)
        healed = cluster.now()
        cluster.network.heal(cluster.machines[0])
        wait_until(lambda: bool(cluster.rows(f"SELECT 1 AS n {by_one} AND scored_at > '{healed}' LIMIT 1")), 120)
        assert first.poll() is None
        two("status", "--watch")

    rows = cluster.rows(
        "SELECT recording_id, worker, scored_at, chunk FROM predictions JOIN job_items USING (recording_id)"
    )
    assert len(rows) == len({row["recording_id"] for row in rows}) == RECORDS
    assert cluster.rows("SELECT 1 AS n FROM failures") == []
    beside = [row for row in rows if "@one:" in row["worker"] and _seconds(cut, row["scored_at"]) > 1]
    assert all(row["scored_at"] > healed for row in beside), "written by a machine that was cut off"
    of_chunk = [row for row in rows if row["chunk"] == held and row["scored_at"] > cut]
    late = [row for row in of_chunk if _seconds(cut, row["scored_at"]) > 1]
    assert late and all("@two:" in row["worker"] for row in late), "by the one whose lease had run out"
    assert all(_seconds(cut, row["scored_at"]) > LEASE_SECONDS / 2 for row in late)
    for log in ("one", "two"):
        assert "Traceback" not in (cluster.commands[0].folder.parent / log / "worker.log").read_text()
    assert ends(two) == undisturbed(two, tmp_path / "archive")


def _cut_off_in_mid_chunk(cluster: Cluster) -> int:
    """Cuts the first machine off while it works on a chunk, and says on which."""
    while True:
        cluster.network.cut(cluster.machines[0])
        held = cluster.rows("SELECT number FROM chunks WHERE state = 'running' AND worker LIKE '%@one:%'")
        if held:
            return int(held[0]["number"])
        cluster.network.heal(cluster.machines[0])  # it was between two
        time.sleep(1)


def _seconds(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
