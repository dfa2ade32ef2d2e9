"""The Node client as others get it: the tarball of the release, in an empty project."""

import json
import re
import tarfile
from pathlib import Path

import pytest

from tests.external.release import RELEASE, ROOT, VERSION, blocks, command, demo, demo_server

pytestmark = pytest.mark.timeout(600)

TARBALL = RELEASE / f"userprofile-client-{VERSION}.tgz"
README = "clients/node/README.md"
TSC = f"{ROOT}/clients/node/node_modules/.bin/tsc --noEmit --strict --exactOptionalPropertyTypes --target es2022"
OPENTELEMETRY = "api@1.9.1 instrumentation@0.223.0 instrumentation-grpc@0.223.0 sdk-trace-node@2.12.0"

CALLER = """
import { type ClientOptions, Reason, type User, UserProfileClient, UserProfileError, status } from "userprofile-client";

export async function greet(signal: AbortSignal | undefined, token: string | undefined): Promise<string> {
  const options: ClientOptions = { token, tls: { ca: Buffer.from("…") }, metadata: { team: ["a", "b"] } };
  await using client = new UserProfileClient("localhost:50051", options);
  try {
    const users: Map<string, User> = await client.getUsers(new Set(["johndoe"]), { signal, fields: ["fullName"] });
    // @ts-expect-error a field may be unset
    const name: string = users.get("johndoe")?.fullName;
    // @ts-expect-error there is no such field
    await client.getUser("johndoe", { fields: ["shoeSize"] });
    return name;
  } catch (error) {
    if (!(error instanceof UserProfileError)) throw error;
    return error.reason === Reason.USER_NOT_FOUND && error.code === status.NOT_FOUND ? "Nobody" : error.message;
  }
}
"""

REQUIRING = """
require("@grpc/grpc-js");
const { UserProfileClient } = require("userprofile-client");
const client = new UserProfileClient(process.env.USERPROFILE_TARGET);
client.getUser("johndoe").then(() => client.getUsers(["johndoe"])).finally(() => client.close());
"""


def install(folder: Path, *packages: str) -> None:
    command("npm init --yes", folder)
    command(" ".join(["npm install --prefer-offline --no-audit --no-fund", str(TARBALL), *packages]), folder)


def test_the_example_of_the_readme_works_as_printed_in_an_empty_project(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "greet.mjs").write_text(blocks(README, "js")[0])
    with demo(tmp_path) as target:
        assert command("node greet.mjs", tmp_path, USERPROFILE_TARGET=target) == blocks(README, "text")[0]
    # CommonJS gets the same module.
    (tmp_path / "required.cjs").write_text("console.log(typeof require('userprofile-client').UserProfileClient)")
    assert command("node required.cjs", tmp_path) == "function\n"
    # So does TypeScript, whichever way it resolves modules.
    (tmp_path / "caller.mts").write_text(CALLER)
    (tmp_path / "caller.cts").write_text(CALLER)
    command(f"{TSC} --module nodenext caller.mts caller.cts", tmp_path)
    command(f"{TSC} --module preserve --moduleResolution bundler caller.mts", tmp_path)


def test_opentelemetry_makes_spans_of_its_calls_as_the_readme_says(tmp_path: Path) -> None:
    install(tmp_path, *(f"@opentelemetry/{package}" for package in OPENTELEMETRY.split()))
    example, telemetry, *_ = blocks(README, "js")
    (tmp_path / "greet.mjs").write_text(example)
    (tmp_path / "telemetry.mjs").write_text(telemetry)
    (tmp_path / "greet.cjs").write_text(REQUIRING)
    for program in ("greet.mjs", "greet.cjs"):
        with demo_server(tmp_path, "--log-calls", "1", "--log-format", "json") as server:
            printed = command(f"node --import ./telemetry.mjs {program}", tmp_path, USERPROFILE_TARGET=server.address)
        assert re.findall(r"  name: '(grpc\..*)'", printed) == [
            "grpc.userprofile.v1.UserProfileService/GetUser",
            "grpc.userprofile.v1.UserProfileService/BatchGetUsers",
        ]
        # The server gets the spans' trace ids.
        lines = [json.loads(line) for line in server.stderr.splitlines()]
        traces = [line["trace_id"] for line in lines if "trace_id" in line]
        assert traces == re.findall(r"traceId: '(\w+)'", printed)


def test_it_has_what_callers_need_and_nothing_else() -> None:
    with tarfile.open(TARBALL) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
        package = json.load(archive.extractfile("package/package.json") or pytest.fail("no package.json"))
    assert package["engines"] == {"node": "^20.19 || >=22.12"}  # others can't require an ES module
    metadata = {"LICENSE", "README.md", "package.json"}
    assert metadata | {"dist/index.js", "dist/index.d.ts"} <= names
    assert [name for name in names - metadata if not re.fullmatch(r"dist/[\w/]+\.(js|d\.ts)", name)] == []
