import { readFileSync } from "node:fs";
import { ChannelCredentials } from "@grpc/grpc-js";
import { checkTls } from "./tls.js";

/**
 * PEM files, read anew for each connection, so that they may be replaced at any
 * time; while they are missing or invalid, the last good ones are used. Open
 * connections go on until they end.
 */
export interface TlsFiles {
  /** The root certificates to trust instead of those of Node.js. */
  ca?: string | undefined;
  /** The client's certificate chain, for mutual TLS. */
  cert?: string | undefined;
  /** The private key of `cert`. */
  key?: string | undefined;
  /** The name in the server's certificate, if it isn't the target's host. */
  serverName?: string | undefined;
}

/** Returns credentials of the files. Throws an Error if one can't be used. */
export function readTlsFiles({ ca, cert, key }: TlsFiles): ChannelCredentials {
  const tls = { ca: read(ca), cert: read(cert), key: read(key) };
  checkTls(tls);
  return ChannelCredentials.createSsl(tls.ca, tls.key, tls.cert);
}

function read(path: string | undefined): Buffer | undefined {
  return path === undefined ? undefined : readFileSync(path);
}
