import { isIPv4 } from "node:net";
import {
  type ChannelCredentials,
  type ChannelOptions,
  credentials,
  Metadata,
} from "@grpc/grpc-js";
import { checkTls } from "./tls.js";

/** Certificates and keys, all PEM, as read from their files. */
export interface TlsOptions {
  /** The authorities to trust instead of those that Node.js trusts. */
  ca?: Buffer | undefined;
  /** The client's certificate with those between it and its authority. */
  cert?: Buffer | undefined;
  /** The private key of `cert`. */
  key?: Buffer | undefined;
}

/** How to connect; by default in plaintext and without a token. */
export interface ConnectionOptions {
  /** Connect with TLS; `{}` trusts the authorities that Node.js trusts. */
  tls?: TlsOptions | undefined;
  /** Sent with every call, as `authorization: Bearer …`. */
  token?: string | undefined;
  /** Let the network read the token: send it in plaintext, wherever to. */
  allowPlaintextToken?: boolean | undefined;
  /**
   * Whether calls wait for a server that can be reached, until their time is up,
   * so that a restart isn't felt; true by default. Else they fail after their
   * retries.
   */
  waitForReady?: boolean | undefined;
}

/** What a stub is made of, and the metadata of its calls. */
export interface Connection {
  credentials: ChannelCredentials;
  channelOptions: ChannelOptions;
  metadata: Metadata;
}

const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  // Each failure costs a token, each success returns one, and there are no
  // retries below half of maxTokens: a lost server among several is made up for,
  // and so is for any time one that has lost its store; a service that is down
  // isn't hit with five times the load for long.
  retryThrottling: { maxTokens: 1000, tokenRatio: 0.999 },
  methodConfig: [
    {
      name: [{ service: "userprofile.v1.UserProfileService" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.05s",
        maxBackoff: "2s",
        backoffMultiplier: 4,
        retryableStatusCodes: ["UNAVAILABLE", "CANCELLED"],
      },
    },
  ],
};

/**
 * Between attempts to connect again. gRPC's own, a second to two minutes,
 * outlasts every deadline once a server has been away for a while.
 */
const RECONNECT_MS = { first: 100, longest: 1000 };

/** Between two pings on a quiet connection; our servers allow one every 20 s. */
const KEEPALIVE_MS = 30_000;

/** A hundred profiles, whatever somebody has put into their names. */
const MAX_RESPONSE_BYTES = 64 * 1024 * 1024;

/** Checks what the caller gave, and connects nothing yet. */
export function prepareConnection(
  target: string,
  options: ConnectionOptions,
): Connection {
  const {
    tls,
    token,
    allowPlaintextToken = false,
    waitForReady = true,
  } = options;
  if (target === "" || /^https?:/i.test(target)) {
    throw new TypeError(
      `The target must be like "localhost:50051", not "${target}"`,
    );
  }
  const local = isLoopback(target);
  if (token !== undefined && !tls && !local && !allowPlaintextToken) {
    throw new TypeError(
      `A token is sent to ${target} only with TLS, or if allowPlaintextToken says so`,
    );
  }
  return {
    credentials: tls ? tlsCredentials(tls) : credentials.createInsecure(),
    channelOptions: {
      "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
      // Else whatever a DNS TXT record says would replace the policy above.
      "grpc.service_config_disable_resolution": 1,
      "grpc.keepalive_time_ms": KEEPALIVE_MS,
      "grpc.keepalive_timeout_ms": 10_000,
      "grpc.keepalive_permit_without_calls": 1,
      "grpc.initial_reconnect_backoff_ms": RECONNECT_MS.first,
      "grpc.max_reconnect_backoff_ms": RECONNECT_MS.longest,
      "grpc.max_receive_message_length": MAX_RESPONSE_BYTES,
      // To a proxy from the environment, loopback would be the proxy itself.
      "grpc.enable_http_proxy": local ? 0 : 1,
    },
    metadata: tokenMetadata(token, waitForReady),
  };
}

function tlsCredentials(tls: TlsOptions): ChannelCredentials {
  try {
    checkTls(tls);
    return credentials.createSsl(tls.ca, tls.key, tls.cert);
  } catch (cause) {
    throw new TypeError(
      `The TLS certificates or the key can't be used: ${cause}`,
      { cause },
    );
  }
}

function tokenMetadata(
  token: string | undefined,
  waitForReady: boolean,
): Metadata {
  const metadata = new Metadata({ waitForReady });
  if (token !== undefined) {
    // gRPC would refuse it too, but with the token in its message.
    if (!/^[\x21-\x7e]+$/.test(token)) {
      throw new TypeError(
        "The token must be printable ASCII without spaces, and not empty",
      );
    }
    metadata.set("authorization", `Bearer ${token}`);
  }
  return metadata;
}

/** Whether the target is certainly on this machine, without asking DNS. */
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
