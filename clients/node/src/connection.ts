import { isIPv4 } from "node:net";
import {
  type ChannelCredentials,
  type ChannelOptions,
  type ClientOptions as GrpcOptions,
  credentials,
  type Interceptor,
} from "@grpc/grpc-js";
import { type ServiceConfig, withRetries } from "./retries.js";
import { checkTls } from "./tls.js";
import { readTlsFiles, type TlsFiles } from "./tls_files.js";
import { TlsCredentials } from "./tls_credentials.js";
import { type Token, type TokenSource, tokenSource } from "./token.js";

/** Certificates and keys, all PEM, as read from their files. */
export interface TlsOptions {
  /** The root certificates to trust instead of those of Node.js. */
  ca?: Buffer | undefined;
  /** The client's certificate chain, for mutual TLS. */
  cert?: Buffer | undefined;
  /** The private key of `cert`. */
  key?: Buffer | undefined;
  /** The name in the server's certificate, if it isn't the target's host. */
  serverName?: string | undefined;
}

/** Options of the connection; by default plaintext without a token. */
export interface ConnectionOptions {
  /** Use TLS; `{}` trusts the root certificates of Node.js. */
  tls?: TlsOptions | undefined;
  /** Use TLS, with certificates in files that may be replaced. */
  tlsFiles?: TlsFiles | undefined;
  /** Sent with every call, as `authorization: Bearer …`. */
  token?: Token | undefined;
  /**
   * A file with the token, instead of `token`. It is read again when it has
   * changed; while it is missing or invalid, the last valid token is sent.
   */
  tokenFile?: string | undefined;
  /** Allow sending the token without TLS to other machines. */
  allowPlaintextToken?: boolean | undefined;
  /**
   * Whether calls wait until a server can be reached, at most until their
   * deadline, and so survive a restart; true by default. Otherwise they fail
   * after their retries.
   */
  waitForReady?: boolean | undefined;
  /**
   * Retries of a call while the service is unavailable, 0 to 4; 4 by default.
   * All calls are reads, so retrying is safe.
   */
  retries?: number | undefined;
  /**
   * Connections to each server address, 1 to 64; 1 by default. Calls take
   * turns, so that they reach several processes of one server.
   */
  connections?: number | undefined;
  /** Interceptors of grpc-js, for every attempt to make a call. */
  interceptors?: readonly Interceptor[] | undefined;
  /** Further options of grpc-js for channels, which override the client's. */
  channelOptions?: ChannelOptions | undefined;
}

/** What callers need of the options. */
export interface Connection {
  credentials: ChannelCredentials;
  clientOptions: GrpcOptions;
  serviceConfig: ServiceConfig;
  connections: number;
  token: TokenSource;
  waitForReady: boolean;
}

/** Enough for an even spread over a few processes. */
const MAX_CONNECTIONS = 64;

/**
 * Backoff between connection attempts. gRPC's default, one second to two
 * minutes, would exceed every deadline after a longer outage.
 */
const RECONNECT_MS = { first: 100, longest: 1000 };

/** Interval of pings on an idle connection; the server allows one per 20 s. */
const KEEPALIVE_MS = 30_000;

/** Enough for a hundred profiles of 600 KB. */
const MAX_RESPONSE_BYTES = 64 * 1024 * 1024;

/** Checks the caller's options. Doesn't connect yet. */
export function prepareConnection(
  target: string,
  options: ConnectionOptions,
): Connection {
  const {
    tls,
    tlsFiles,
    token,
    tokenFile,
    allowPlaintextToken = false,
    waitForReady = true,
    retries,
    connections = 1,
    interceptors = [],
    channelOptions,
  } = options;
  if (!isTarget(target)) {
    throw new TypeError(
      `The target must be host:port or another gRPC name, not "${target}"`,
    );
  }
  if (!(
    Number.isInteger(connections) &&
    connections >= 1 &&
    connections <= MAX_CONNECTIONS
  ))
    throw new TypeError(`connections must be 1 to ${MAX_CONNECTIONS}`);
  // Else null or false would be taken for TLS here, and for plaintext there.
  checkObject("tls", tls);
  checkObject("tlsFiles", tlsFiles);
  if (tls && tlsFiles) throw new TypeError("Set tls or tlsFiles, not both");
  if (token !== undefined && tokenFile !== undefined) {
    throw new TypeError("Set token or tokenFile, not both");
  }
  const local = isLoopback(target);
  const hasToken = token !== undefined || tokenFile !== undefined;
  const safe = local || tls !== undefined || tlsFiles !== undefined;
  if (hasToken && !safe && !allowPlaintextToken) {
    throw new TypeError(
      `The token would be sent to ${target} in plaintext; use TLS or allowPlaintextToken`,
    );
  }
  const serviceConfig = withRetries(retries);
  const serverName = (tls ?? tlsFiles)?.serverName;
  return {
    credentials: channelCredentials(tls, tlsFiles),
    serviceConfig,
    connections,
    token: tokenSource(token, tokenFile),
    waitForReady,
    clientOptions: {
      interceptors: [...interceptors],
      "grpc.service_config": JSON.stringify(serviceConfig),
      // Else whatever a DNS TXT record says would replace the policy above.
      "grpc.service_config_disable_resolution": 1,
      "grpc.keepalive_time_ms": KEEPALIVE_MS,
      "grpc.keepalive_timeout_ms": 10_000,
      "grpc.keepalive_permit_without_calls": 1,
      "grpc.initial_reconnect_backoff_ms": RECONNECT_MS.first,
      "grpc.max_reconnect_backoff_ms": RECONNECT_MS.longest,
      "grpc.max_receive_message_length": MAX_RESPONSE_BYTES,
      // Else all clients of one address would share its connection.
      "grpc.use_local_subchannel_pool": 1,
      // To a proxy from the environment, loopback would be the proxy itself.
      "grpc.enable_http_proxy": local ? 0 : 1,
      ...(serverName !== undefined && {
        "grpc.ssl_target_name_override": serverName,
      }),
      ...channelOptions,
    },
  };
}

function checkObject(option: string, value: unknown): void {
  if (value !== undefined && (typeof value !== "object" || value === null))
    throw new TypeError(`${option} must be an object; leave it out for none`);
}

function channelCredentials(
  tls: TlsOptions | undefined,
  files: TlsFiles | undefined,
): ChannelCredentials {
  try {
    if (files) return new TlsCredentials(() => readTlsFiles(files));
    if (!tls) return credentials.createInsecure();
    checkTls(tls);
    const fixed = credentials.createSsl(tls.ca, tls.key, tls.cert);
    return new TlsCredentials(() => fixed);
  } catch (cause) {
    throw new TypeError(`Invalid TLS certificates or key: ${String(cause)}`, {
      cause,
    });
  }
}

function isTarget(target: unknown): boolean {
  if (typeof target !== "string") return false;
  if (target.startsWith("unix:")) return true;
  return target !== "" && !/^https?:|\s/i.test(target);
}

/** Whether the target is this machine, as far as known without DNS. */
function isLoopback(target: string): boolean {
  if (target.startsWith("unix:")) return true;
  const addresses = target
    .replace(/^(dns:\/{3}|dns:|ipv4:|ipv6:)/, "")
    .split(",");
  return addresses.every((address) => {
    const host = address.replace(/:\d+$/, "");
    return (
      host === "localhost" ||
      host === "[::1]" ||
      (isIPv4(host) && host.startsWith("127."))
    );
  });
}
