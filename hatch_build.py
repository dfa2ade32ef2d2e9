"""Build hook: compiles `protos/` into the package, so that stubs never need committing.

It runs for wheels, sdists and editable installs alike. The code generator is a requirement of the
build environment alone (see `[build-system]` in pyproject.toml): what it generates runs on newer
versions of grpcio and protobuf than the generator itself could be installed beside.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLUGINS = {"protoc-gen-mypy": "main", "protoc-gen-mypy_grpc": "grpc"}
"""Commands of mypy-protobuf, and the function of mypy_protobuf.main that each calls."""


class ProtobufBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "protobuf"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # Imported here, so that asking this file what a build needs doesn't need it already.
        import google.rpc
        import grpc_tools
        from grpc_tools import protoc

        root = Path(self.root)
        # Others' protos that ours import: google/rpc and google/protobuf.
        imported = [Path(google.rpc.__path__[0]).parents[1], Path(grpc_tools.__path__[0]) / "_proto"]
        client = root / "client"
        protos = sorted(str(path) for path in root.glob("protos/**/*.proto"))
        with tempfile.TemporaryDirectory() as folder:
            arguments = [
                "protoc",
                f"--proto_path={root / 'protos'}",
                *(f"--proto_path={path}" for path in imported),
                *(_plugin(Path(folder), name, function) for name, function in PLUGINS.items()),
                f"--python_out={client}",
                f"--grpc_python_out={client}",
                f"--mypy_out={client}",
                f"--mypy_grpc_out={client}",
                *protos,
            ]
            if protoc.main(arguments) != 0:
                raise SystemExit(f"protoc failed on {', '.join(protos)}")
        # Wheels have what isn't Python from protos/ itself; the checkout's package has it from here.
        for config in root.glob("protos/**/*.json"):
            shutil.copyfile(config, client / config.relative_to(root / "protos"))


def _plugin(folder: Path, name: str, function: str) -> str:
    """A flag for a command that works in any folder: pip's own fail where the path has a quote or a dollar sign."""
    if os.name == "nt":
        return f"--plugin={name}"
    os.environ["USERPROFILE_BUILD_PYTHON"] = sys.executable
    program = f"from mypy_protobuf.main import {function}; {function}()"
    path = folder / name
    path.write_text(f"""#!/bin/sh\nexec "$USERPROFILE_BUILD_PYTHON" -c '{program}'\n""")
    path.chmod(0o700)
    return f"--plugin={name}={path}"
