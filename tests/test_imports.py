"""Imports go one way: what every module of ours imports, read from its source, wherever in the file it does so."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import userprofile
from tests.canary import raises

ROOT = Path(__file__).parent.parent
SERVER, CLIENT = "userprofile_server", "userprofile"

BELOW = {
    f"{SERVER}.errors": set[str](),
    f"{SERVER}.settings_base": set[str](),
    f"{SERVER}.telemetry": {"errors", "listen", "settings_base"},
    f"{SERVER}.limits": {"settings_base"},
    f"{SERVER}.listen": set[str](),
    f"{SERVER}.listeners": {"listen"},
    f"{SERVER}.descriptors": set[str](),
    f"{SERVER}.readiness": set[str](),
    f"{SERVER}.stores": {"errors", "settings_base"},
    f"{SERVER}.users": {"errors", "stores"},
    f"{SERVER}.security": {"errors", "settings_base"},
    f"{SERVER}.rpc": {"errors", "limits", "security", "stores", "telemetry", "users"},
    f"{SERVER}.importing": {"errors", "stores", "users"},
    f"{SERVER}.check": {"errors", "rpc", "security", "stores"},
    f"{SERVER}.settings": {"limits", "listen", "listeners", "security", "settings_base", "stores", "telemetry"},
    f"{SERVER}.process": {"signals", "telemetry"},
    f"{SERVER}.top": {"listen", "signals", "telemetry"},
}
"""What the parts of the server may import of it. What isn't named here puts the parts together: server.py, cli.py."""

SHARED = {"certificates", "environment", "printable", "reasons", "service_config", "targets", "text_input", "v1"}
"""What the server imports of the client: leaves that are there once for both, and the generated stubs."""

GRPC = ("grpc", "google", "grpc_health", "grpc_reflection", "grpc_status")


@cache
def modules() -> dict[str, Path]:
    """All modules of ours, by name."""
    found = {}
    for folder in (ROOT / "client", ROOT / "server"):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str) -> set[str]:
    """The names of all modules that it imports, others' too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else node.module for name in names}
    return found


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def ours(module: str) -> set[str]:
    """Those of ours, with the packages that they make Python import as well."""
    found = {name for name in imports(module) if name in modules()}
    parents = {name.rpartition(".")[0] for name in found}
    return found | {parent for parent in parents if parent in modules() and not is_in(module, parent)}


def test_the_modules_are_found() -> None:
    assert {f"{SERVER}.rpc.pipeline", f"{SERVER}.users", f"{CLIENT}.client", "userprofile_command"} <= set(modules())
    assert f"{SERVER}.users.lookup" in ours(f"{SERVER}.rpc.service")
    assert f"{SERVER}.stores.couchbase.store" in ours(f"{SERVER}.stores.couchbase.backend"), "inside of functions too"


def test_there_is_no_circle() -> None:
    try:
        tuple(TopologicalSorter({module: ours(module) - {module} for module in modules()}).static_order())
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


@pytest.mark.parametrize("part", BELOW)
def test_a_part_of_the_server_imports_only_what_is_below_it(part: str) -> None:
    allowed = {f"{SERVER}.{name}" for name in BELOW[part]} | {part}
    for module in modules():
        if is_in(module, part):
            within = {name for name in ours(module) if is_in(name, SERVER)}
            assert [name for name in within if not any(is_in(name, each) for each in allowed)] == [], module


def test_every_part_of_the_server_has_its_place() -> None:
    above = {
        "__main__",
        "access",
        "callers_cli",
        "cli",
        "gauges",
        "processes",
        "serve",
        "server",
        "settings_cli",
        "settings_file",
        "signals",
        "standard_streams",
    }
    named = {name.removeprefix(f"{SERVER}.") for name in BELOW} | above
    parts = {name.split(".")[1] for name in modules() if name.startswith(f"{SERVER}.")}
    assert parts == named


def test_the_client_imports_nothing_of_the_server_and_the_server_only_leaves_of_the_client() -> None:
    allowed = {f"{CLIENT}.{name}" for name in SHARED}
    for module in modules():
        for name in imports(module):
            if is_in(module, SERVER):
                assert not is_in(name, CLIENT) or any(is_in(name, each) for each in allowed) or name == CLIENT, module
            else:
                assert not is_in(name, SERVER), module
    for leaf in allowed - {f"{CLIENT}.v1"}:
        above = {name for name in ours(leaf) if not any(is_in(name, each) for each in allowed)}
        assert above <= {CLIENT}, leaf


def test_a_leaf_of_the_client_brings_no_grpc_and_every_public_name_is_there() -> None:
    leaves = "import userprofile.environment, userprofile.targets, userprofile.text_input"
    subprocess.run([sys.executable, "-c", f"import sys; {leaves}; assert 'grpc' not in sys.modules"], check=True)
    assert set(dir(userprofile)) >= set(userprofile.__all__)
    for name in userprofile.__all__:
        assert getattr(userprofile, name)
    with raises(AttributeError, match="module 'userprofile' has no attribute 'UserClient'"):
        getattr(userprofile, "UserClient")  # noqa: B009, the type checker knows it too


def test_nothing_below_rpc_knows_grpc() -> None:
    knowing = {
        module.removeprefix(f"{SERVER}.")
        for module in modules()
        if is_in(module, SERVER) and any(name.split(".")[0] in GRPC for name in imports(module))
    }
    assert {name for name in knowing if not name.startswith("rpc.")} == {"server"}


def test_only_a_stores_own_package_knows_it_and_its_driver() -> None:
    for store, driver in (("sqlite", "sqlite3"), ("couchbase", "couchbase")):
        package = f"{SERVER}.stores.{store}"
        for module in (name for name in modules() if is_in(name, SERVER) and not is_in(name, package)):
            known = {name for name in imports(module) if is_in(name, package) or is_in(name, driver)}
            # The settings of all stores stand in one place.
            assert known <= ({f"{package}.settings"} if module == f"{SERVER}.stores.settings" else set()), module


def test_who_uses_neither_json_web_tokens_nor_opentelemetry_does_not_pay_for_them() -> None:
    modules = "sys, userprofile, userprofile_server.cli, userprofile_server.serve"
    code = f"import {modules}; userprofile.UserProfileClient; assert not {{'jwt', 'opentelemetry'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
