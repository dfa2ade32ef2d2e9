"""Build hook: compiles `protos/` into the package, so that stubs never need committing.

It runs for wheels, sdists and editable installs alike. The code generator is a requirement of the
build environment alone (see `[build-system]` in pyproject.toml): what it generates runs on newer
versions of grpcio and protobuf than the generator itself could be installed beside.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


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
        arguments = [
            "protoc",
            f"--proto_path={root / 'protos'}",
            *(f"--proto_path={path}" for path in imported),
            f"--python_out={client}",
            f"--grpc_python_out={client}",
            f"--mypy_out={client}",
            f"--mypy_grpc_out={client}",
            *protos,
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit(f"protoc failed on {', '.join(protos)}")
