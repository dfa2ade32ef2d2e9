import { generate, type SelfsignedOptions } from "selfsigned";

/** A certificate and its key, PEM. */
export interface Identity {
  cert: Buffer;
  key: Buffer;
}

const MODERN = { keyType: "ec", algorithm: "sha256" } as const;

/** Makes a new authority. */
export function makeAuthority(): Promise<Identity> {
  return make("the test's authority", {
    ...MODERN,
    extensions: [
      { name: "basicConstraints", cA: true, critical: true },
      { name: "keyUsage", keyCertSign: true, critical: true },
    ],
  });
}

/** Makes an identity for servers and clients; a server is `name`. */
export function issue(
  { cert, key }: Identity,
  name: string,
): Promise<Identity> {
  return make(name, {
    ...MODERN,
    ca: { cert: cert.toString(), key: key.toString() },
  });
}

async function make(
  name: string,
  options: SelfsignedOptions,
): Promise<Identity> {
  const made = await generate([{ name: "commonName", value: name }], options);
  return { cert: Buffer.from(made.cert), key: Buffer.from(made.private) };
}
