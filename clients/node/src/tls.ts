import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import type { TlsOptions } from "./connection.js";

/** Allows for new certificates from a machine whose clock is ahead. */
const CLOCK_SKEW_MS = 5 * 60_000;

/** clientAuth, and any purpose (RFC 5280, 4.2.1.12). */
const FOR_CLIENTS = ["1.3.6.1.5.5.7.3.2", "2.5.29.37.0"];

const BLOCK =
  /^-----BEGIN ([^\r\n]*?)-----[ \t]*\r?\n[^]*?^-----END \1-----[ \t]*\r?$/gm;

/**
 * Throws a clear error if TLS would fail, or would not trust the given
 * authorities: OpenSSL skips certificates that it can't read.
 */
export function checkTls({ ca, cert, key }: TlsOptions): void {
  if (ca) checkAuthorities(ca);
  if (!cert !== !key) throw new Error("cert needs key, and key needs cert");
  if (cert && key) checkPair(cert, key);
}

function checkAuthorities(pem: Buffer): void {
  // One that has signed itself may be trusted as it is.
  const roots = certificatesIn(pem, "ca").filter(
    (one) => one.ca || one.issuer === one.subject,
  );
  if (roots.length === 0) {
    throw new Error(
      "ca holds a certificate issued by an authority, not the authority's own",
    );
  }
  const problems = roots.map(validityProblem);
  // One valid authority is enough.
  if (problems.every(Boolean)) throw new Error(`ca ${problems[0]}`);
}

function checkPair(cert: Buffer, pem: Buffer): void {
  const [own] = certificatesIn(cert, "cert");
  if (!own) throw new Error("cert holds no certificate");
  const labels = blocksOf(pem, "key").map(([, label]) => label);
  const label = labels.find((one) => one?.endsWith("PRIVATE KEY"));
  if (!label) throw new Error(`key holds a ${labels[0]}, not a private key`);
  if (label.startsWith("ENCRYPTED") || pem.includes("Proc-Type: 4,ENCRYPTED")) {
    throw new Error("key is encrypted; decrypt it first");
  }
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    throw new Error("key is damaged, or of an unknown kind");
  }
  if (!own.checkPrivateKey(key)) {
    throw new Error("key doesn't belong to the (first) certificate in cert");
  }
  const problem = validityProblem(own);
  if (problem) throw new Error(`cert ${problem}`);
  const usage = own.keyUsage as string[] | undefined; // the extended one
  if (usage && !usage.some((purpose) => FOR_CLIENTS.includes(purpose))) {
    throw new Error(
      "cert's extended key usage lacks clientAuth, so it isn't one for a client",
    );
  }
}

function certificatesIn(pem: Buffer, name: string): X509Certificate[] {
  const blocks = blocksOf(pem, name);
  const found = blocks.filter(
    ([, label]) => label === "CERTIFICATE" || label === "X509 CERTIFICATE",
  );
  if (found.length === 0) {
    throw new Error(`${name} holds a ${blocks[0]?.[1]}, not a certificate`);
  }
  return found.map(([block], index) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw new Error(`certificate ${index + 1} in ${name} is damaged`, {
        cause,
      });
    }
  });
}

function blocksOf(pem: Buffer, name: string): RegExpMatchArray[] {
  const text = pem.toString("latin1");
  if (text.trim() === "") throw new Error(`${name} is empty`);
  const blocks = [...text.matchAll(BLOCK)];
  if (text.split("-----BEGIN ").length - 1 !== blocks.length) {
    throw new Error(`${name} is damaged: not every PEM block in it is whole`);
  }
  if (blocks.length === 0) throw new Error(`${name} isn't PEM`);
  return blocks;
}

function validityProblem({ validFrom, validTo }: X509Certificate) {
  if (Date.parse(validTo) < Date.now()) return `expired at ${validTo}`;
  if (Date.parse(validFrom) > Date.now() + CLOCK_SKEW_MS) {
    return `isn't valid before ${validFrom}`;
  }
  return undefined;
}
