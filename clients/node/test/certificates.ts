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

/** Makes one that has signed itself, valid from and to so many days from now. */
export function makeSelfSigned(from: number, to: number): Promise<Identity> {
  const day = (days: number) => new Date(Date.now() + days * 86_400_000);
  return make("users.example", {
    ...MODERN,
    notBeforeDate: day(from),
    notAfterDate: day(to),
  });
}

/** Makes an identity for servers and clients, or for one of them alone; a server is `name`. */
export function issue(
  { cert, key }: Identity,
  name: string,
  usage?: "clientAuth" | "serverAuth",
): Promise<Identity> {
  return make(name, {
    ...MODERN,
    ca: { cert: cert.toString(), key: key.toString() },
    ...(usage && { extensions: [{ name: "extKeyUsage", [usage]: true }] }),
  });
}

async function make(
  name: string,
  options: SelfsignedOptions,
): Promise<Identity> {
  const made = await generate([{ name: "commonName", value: name }], options);
  return {
    cert: Buffer.from(`${made.cert.trim()}\n`),
    key: Buffer.from(made.private),
  };
}
