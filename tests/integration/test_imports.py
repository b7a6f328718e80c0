"""What a command imports, and what it does without."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("arguments", ["status", "query superclasses", "enqueue archive"])
def test_who_only_enqueues_or_queries_needs_no_torch(services: Command, archive: Path, arguments: str) -> None:
    script = (
        "import sys; from ecgbatch.cli import main; status = main(sys.argv[1:]);"
        "print(sorted({'torch', 'wfdb', 'scipy', 'pandas'} & set(sys.modules)), status)"
    )
    line = [sys.executable, "-c", script, *arguments.split()]
    done = subprocess.run(line, cwd=services.folder, env=services.environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr
