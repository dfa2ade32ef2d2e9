/** Returns a variable that `python -m tests.client_conformance` prints. */
export function environment(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === "")
    throw new Error(`${name} is not set; the README says how to run the tests`);
  return value;
}
