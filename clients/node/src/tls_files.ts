import { readFileSync } from "node:fs";
import { ChannelCredentials, type experimental } from "@grpc/grpc-js";
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

/** Credentials whose certificates are read for each connection. */
export class FileCredentials extends ChannelCredentials {
  readonly #files: TlsFiles;
  #last: ChannelCredentials;

  /** @throws Error if a file can't be used. */
  constructor(files: TlsFiles) {
    super();
    this.#files = files;
    this.#last = load(files);
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    ...details: Parameters<ChannelCredentials["_createSecureConnector"]>
  ): experimental.SecureConnector {
    const first = this.#last._createSecureConnector(...details);
    return {
      connect: (socket) =>
        this.#latest()
          ._createSecureConnector(...details)
          .connect(socket),
      waitForReady: () => first.waitForReady(),
      getCallCredentials: () => first.getCallCredentials(),
      destroy: () => first.destroy(),
    };
  }

  #latest(): ChannelCredentials {
    try {
      this.#last = load(this.#files);
    } catch {
      // The last good ones it is.
    }
    return this.#last;
  }
}

function load({ ca, cert, key }: TlsFiles): ChannelCredentials {
  const tls = { ca: read(ca), cert: read(cert), key: read(key) };
  checkTls(tls);
  return ChannelCredentials.createSsl(tls.ca, tls.key, tls.cert);
}

function read(path: string | undefined): Buffer | undefined {
  return path === undefined ? undefined : readFileSync(path);
}
