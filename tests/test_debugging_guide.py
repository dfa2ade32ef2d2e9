"""docs/debugging.md says which errors are logged at which level. Its commands are tried by `make test-grpcurl`."""

import logging
import re
from pathlib import Path

from userprofile_server.rpc.error_table import ERROR_STATUSES, UNEXPECTED

GUIDE = Path(__file__).parent.parent / "docs" / "debugging.md"


def test_its_table_of_levels_is_the_codes_own() -> None:
    rows = re.findall(r"^\| (error|warning|info|debug) \| (?:`(\w+)`|all others)", GUIDE.read_text(), re.MULTILINE)
    levels = {reason: level for level, reason in rows}
    others = levels.pop("")
    for status in [*ERROR_STATUSES.values(), UNEXPECTED]:
        level = logging.getLevelName(status.log_level).lower()
        assert levels.pop(status.reason, others) == level, status.reason
    assert not levels, "errors that there aren't"
