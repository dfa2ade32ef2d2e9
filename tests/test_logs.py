"""What stands in the log, and what may not."""

import signal

import grpc

from tests.support import GetUser, ServerProcess, documents_in


def lines_of(store_url: str, level: str) -> list[str]:
    documents_in(store_url, {"broken": {"disabled": "yes"}})
    with ServerProcess(store_url, "--log-level", level) as server:
        with grpc.insecure_channel(server.address) as channel:
            get_user = GetUser(channel)
            for username in ("broken", "johndoe", "nobody"):
                try:
                    get_user(username, metadata=[("x-request-id", f"asking-for-{len(username)}")])
                except grpc.RpcError:
                    pass
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        return server.stderr.splitlines()


def test_a_corrupt_document_is_logged_under_the_calls_request_id_without_the_users_name(user_store_url: str) -> None:
    lines = lines_of(user_store_url, "info")
    (line,) = (line for line in lines if "CORRUPT_DOCUMENT" in line)
    assert "WARNING" in line
    assert "[asking-for-6]" in line
    assert line.endswith("CORRUPT_DOCUMENT: disabled: Input should be a valid boolean")
    assert not any(name in line for line in lines for name in ("'broken'", "johndoe", "nobody"))


def test_at_debug_level_the_operator_learns_whose_document_it_is(user_store_url: str) -> None:
    lines = lines_of(user_store_url, "debug")
    assert any("the document of 'broken' is corrupt" in line and "[asking-for-6]" in line for line in lines)


def test_at_error_level_a_server_that_is_well_is_silent_and_so_is_grpc(user_store_url: str) -> None:
    assert lines_of(user_store_url, "error") == []
