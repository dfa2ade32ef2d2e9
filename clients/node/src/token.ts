import { TokenFile, tokenProblem } from "./token_file.js";

/** A token, or a function that is called for each call and may cache it. */
export type Token = string | (() => string | Promise<string>);

/** Returns the token of the next call; undefined if there is none. */
export type TokenSource = () => string | undefined | Promise<string>;

/** Throws a TypeError, without the token, if one can't be sent. */
export function tokenSource(
  token: Token | undefined,
  file: string | undefined,
): TokenSource {
  if (file !== undefined) {
    const renewed = new TokenFile(file);
    return () => renewed.current;
  }
  if (typeof token === "function") return async () => checked(await token());
  if (token !== undefined) checked(token);
  return () => token;
}

function checked(token: string): string {
  const problem = tokenProblem(token);
  if (problem !== undefined) throw new TypeError(problem);
  return token;
}
