import { type ServiceError, status } from "@grpc/grpc-js";
import { isOutage } from "./gateway.js";
import SERVICE_CONFIG from "./gen/service_config.js";

/** The most retries of the contract's policy. */
const MAX_RETRIES = 4;

/** The service config of the contract, or with fewer retries. */
export type ServiceConfig = Omit<typeof SERVICE_CONFIG, "methodConfig"> & {
  methodConfig: MethodConfig[];
};

type MethodConfig = Pick<Full, "name"> & Partial<Pick<Full, "retryPolicy">>;
type Full = (typeof SERVICE_CONFIG)["methodConfig"][number];

/** Returns the contract's service config, with at most so many retries. */
export function withRetries(retries = MAX_RETRIES): ServiceConfig {
  if (!(Number.isInteger(retries) && retries >= 0 && retries <= MAX_RETRIES))
    throw new TypeError(`retries must be 0 to ${MAX_RETRIES}`);
  const methodConfig = SERVICE_CONFIG.methodConfig.map(
    ({ name, retryPolicy }) => {
      const maxAttempts = Math.min(retryPolicy.maxAttempts, retries + 1);
      // gRPC wants two attempts at least in a policy.
      if (maxAttempts < 2) return { name };
      return { name, retryPolicy: { ...retryPolicy, maxAttempts } };
    },
  );
  return { ...SERVICE_CONFIG, methodConfig };
}

/** Jitter of a pause, as a fraction of it, as in gRPC. */
const JITTER = 0.2;

/** Size of the token bucket; gRPC's throttle allows as many failures. */
const BURST = 500;

/** Refill rate of the token bucket. */
const PER_SECOND = 50;

/**
 * Decides about the retries that grpc-js doesn't make: after a gateway's HTTP
 * error page. grpc-js takes the page's headers for the start of a response.
 */
export class Retries {
  readonly #policies: ReadonlyMap<string, MethodConfig["retryPolicy"]>;
  #tokens = BURST;
  #refilled = performance.now();

  constructor({ methodConfig }: ServiceConfig) {
    this.#policies = new Map(
      methodConfig.flatMap(({ name, retryPolicy }) =>
        name.map(({ service, method }) => [
          `/${service}/${method}`,
          retryPolicy,
        ]),
      ),
    );
  }

  /**
   * Returns the milliseconds to wait before the next retry of a call, undefined
   * if it must not be retried. `retries` is the number of retries so far.
   */
  pause(
    path: string,
    { code, details }: ServiceError,
    retries: number,
    deadline: number,
  ): number | undefined {
    if (code !== status.UNAVAILABLE || !isOutage(details)) return undefined;
    const policy = this.#policies.get(path);
    if (!policy || retries >= policy.maxAttempts - 1) return undefined;
    const pause = Math.min(
      seconds(policy.initialBackoff) * policy.backoffMultiplier ** retries,
      seconds(policy.maxBackoff),
    );
    const ms = 1000 * pause * (1 - JITTER + 2 * JITTER * Math.random());
    if (Date.now() + ms >= deadline || !this.#takeToken()) return undefined;
    return ms;
  }

  #takeToken(): boolean {
    const now = performance.now();
    const refill = ((now - this.#refilled) / 1000) * PER_SECOND;
    this.#tokens = Math.min(BURST, this.#tokens + refill);
    this.#refilled = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}

function seconds(duration: string): number {
  return Number(duration.replace(/s$/, ""));
}
