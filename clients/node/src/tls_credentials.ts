import type { Socket } from "node:net";
import { ChannelCredentials, type experimental } from "@grpc/grpc-js";
import { unlessAborted } from "./waiting.js";

/** As in gRPC's core. grpc-js has no limit, and would never try again. */
const MAX_HANDSHAKE_MS = 20_000;

/**
 * Credentials that are loaded anew for each connection; while that fails, the
 * last ones are used.
 */
export class TlsCredentials extends ChannelCredentials {
  readonly #load: () => ChannelCredentials;
  readonly #maxHandshakeMs: number;
  #last: ChannelCredentials;

  /** Throws what `load` throws. */
  constructor(
    load: () => ChannelCredentials,
    maxHandshakeMs = MAX_HANDSHAKE_MS,
  ) {
    super();
    this.#load = load;
    this.#maxHandshakeMs = maxHandshakeMs;
    this.#last = load();
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
      connect: (socket) => {
        const connector = this.#latest()._createSecureConnector(...details);
        return this.#handshake(socket, connector);
      },
      waitForReady: () => first.waitForReady(),
      getCallCredentials: () => first.getCallCredentials(),
      destroy: () => first.destroy(),
    };
  }

  #latest(): ChannelCredentials {
    try {
      this.#last = this.#load();
    } catch {
      // The last good ones it is.
    }
    return this.#last;
  }

  async #handshake(
    socket: Socket,
    connector: experimental.SecureConnector,
  ): Promise<experimental.SecureConnectResult> {
    socket.unref(); // else it would keep the process from ending after `close`
    const late = AbortSignal.timeout(this.#maxHandshakeMs);
    try {
      return await unlessAborted(connector.connect(socket), late);
    } catch (cause) {
      if (!late.aborted) throw cause;
      const message = `no TLS handshake within ${this.#maxHandshakeMs} ms`;
      throw new Error(message, { cause });
    }
  }
}
