"""Tests don't depend on the shell that starts them: a few of each kind, run in a shell that has set everything."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = [
    "tests/test_cli.py",
    "tests/test_drain.py",
    "tests/test_logs.py",
    "tests/clients/test_cli.py",
    "tests/clients/test_conformance.py",
]
CASES = (
    "has_help or be_completed or progress or bad_setting or outlives_the_grace or under_load or error_level "
    "or by_themselves or Unicode"
)
SHELL = {
    "USERPROFILE_SERVER_STORE": "couchbase://host1,host2/bucket",  # these as docs/couchbase.md has them exported
    "USERPROFILE_SERVER_COUCHBASE_USERNAME": "userprofile",
    "USERPROFILE_SERVER_COUCHBASE_PASSWORD": "password",
    "USERPROFILE_SERVER_COUCHBASE_PASSWORD_FILE": "/run/secrets/couchbase",
    "TEST_COUCHBASE": "couchbase://localhost/userprofile",
    "USERPROFILE_SERVER_LOG_LEVEL": "error",
    "USERPROFILE_SERVER_LOG_FORMAT": "json",
    "OTEL_TRACES_EXPORTER": "console",
    "USERPROFILE_TARGET": "nowhere:1",
    "USERPROFILE_SERVER_LISTEN": "192.0.2.1:5",
    "PYCBC_LOG_LEVEL": "trace",
    "PYTHONIOENCODING": "cp1252",
    "PYTHONWARNINGS": "error",
    "GRPC_VERBOSITY": "debug",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "LC_ALL": "POSIX",
    "TZ": "Asia/Kathmandu",
    "COLUMNS": "20",
    "NO_COLOR": "1",
    "TERM": "vt52",
    "MAKEFLAGS": "j4",
}


def test_a_shell_that_has_set_everything_changes_nothing() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", CASES, *TESTS]
    shell = 'trap "" HUP INT QUIT TERM USR1; umask 077; exec "$@" <&-'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", *command],
        cwd=ROOT,
        env=os.environ | SHELL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_cluster_is_tried_only_by_the_target_that_is_for_it() -> None:
    program = "from tests.store_contract.stores import STORES; print(*STORES)"
    for env, expected in [({}, "sqlite"), ({"TEST_ON_COUCHBASE": "1"}, "cluster")]:
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | SHELL | env, capture_output=True, text=True, check=True
        )
        assert done.stdout.split()[0] == expected
