// The package as npm makes it, in an empty project.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

test("the package has what callers need and no more, and works as the README says", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "userprofile-"));
  t.after(() => {
    rmSync(folder, { recursive: true });
  });
  const run = (cwd: string, command: string, ...args: string[]) =>
    execFileSync(command, args, { cwd, encoding: "utf8" });

  const output = run(
    ROOT,
    "npm",
    "pack",
    "--json",
    "--pack-destination",
    folder,
  );
  const [packed] = JSON.parse(output) as {
    filename: string;
    files: { path: string }[];
  }[];
  assert.ok(packed);
  const files = packed.files.map(({ path }) => path);
  const expected =
    /^(LICENSE|README\.md|package\.json|dist\/[\w/]+\.(js|d\.ts))$/;
  assert.deepEqual(
    files.filter((path) => !expected.test(path)),
    [],
  );
  for (const path of [
    "LICENSE",
    "README.md",
    "dist/index.js",
    "dist/index.d.ts",
  ])
    assert.ok(files.includes(path), path);

  run(folder, "npm", "init", "--yes");
  run(
    folder,
    "npm",
    "install",
    "--prefer-offline",
    "--no-audit",
    "--no-fund",
    packed.filename,
  );
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");
  const [example = ""] = /(?<=```js\n)[^]*?(?=```)/.exec(readme) ?? [];
  writeFileSync(join(folder, "greet.mjs"), example);
  assert.match(
    run(folder, process.execPath, "greet.mjs"),
    /^Hello, John Doe!\n/,
  );
  // CommonJS gets the same module.
  const required = `console.log(typeof require("userprofile-client").UserProfileClient)`;
  assert.match(run(folder, process.execPath, "-e", required), /^function/);
});
