import { readFileSync, statSync, type Stats } from "node:fs";

/**
 * How often a file is looked at, at most, and for how long it must have been
 * left alone before it is read again.
 */
const LOOK_MS = 1000;

/** More than metadata can carry. */
const MAX_BYTES = 64 * 1024;

/** A token in a file that is renewed there. */
export class TokenFile {
  readonly #path: string;
  #token: string;
  #read: Stats;
  #look = Date.now();

  /**
   * Reads the token.
   *
   * @throws TypeError, with nothing of the file in it, if there is none.
   */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#read = statSync(path); // before reading: what is written meanwhile is a change
      this.#token = readToken(path, this.#read);
    } catch (cause) {
      const { message } = cause as Error;
      throw new TypeError(`The token file: ${message}`, { cause });
    }
  }

  /** The token in the file, or the last one if there is none now. */
  get current(): string {
    const now = Date.now();
    const since = now - this.#look; // below zero if the clock was set back
    if (since >= 0 && since < LOOK_MS) return this.#token;
    this.#look = now;
    try {
      const found = statSync(this.#path);
      const age = now - found.mtimeMs;
      const maybeHalf = age >= 0 && age < LOOK_MS;
      if (found.isFile() && !maybeHalf && !unchanged(found, this.#read)) {
        this.#token = readToken(this.#path, found);
        this.#read = found;
      }
    } catch {
      // The last one it is.
    }
    return this.#token;
  }
}

function unchanged(a: Stats, b: Stats): boolean {
  return (
    a.dev === b.dev &&
    a.ino === b.ino &&
    a.size === b.size &&
    a.mtimeMs === b.mtimeMs &&
    a.ctimeMs === b.ctimeMs
  );
}

function readToken(path: string, { size }: Stats): string {
  // Before reading, which every call waits for.
  if (size > MAX_BYTES) {
    throw new Error(`${path} is larger than any token (${MAX_BYTES} bytes)`);
  }
  const content = readFileSync(path);
  // What editors, shells and secret stores put around it; JavaScript counts a
  // byte order mark as whitespace.
  const token = content.toString().trim();
  const problem = tokenProblem(token);
  if (problem) throw new Error(`${path}: ${problem}`);
  return token;
}

/** Returns why a token can't be sent, without the token. */
export function tokenProblem(token: unknown): string | undefined {
  // gRPC would reject it too, but with the token in its message.
  return typeof token === "string" && /^[\x21-\x7e]+$/.test(token)
    ? undefined
    : "The token must be printable ASCII without spaces, and not empty";
}
