import { type ServiceError, status } from "@grpc/grpc-js";
import { isOutage } from "./gateway.js";
import SERVICE_CONFIG from "./gen/service_config.js";

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
  #tokens = BURST;
  #refilled = performance.now();

  /**
   * Returns the milliseconds to wait before the next retry of a call, undefined
   * if it must not be retried. `retries` is the number of retries so far.
   */
  pause(
    method: string,
    { code, details }: ServiceError,
    retries: number,
    deadline: number,
  ): number | undefined {
    if (code !== status.UNAVAILABLE || !isOutage(details)) return undefined;
    const policy = policyOf(method);
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

function policyOf(method: string) {
  return SERVICE_CONFIG.methodConfig.find(({ name }) =>
    name.some((named) => named.method === method),
  )?.retryPolicy;
}

function seconds(duration: string): number {
  return Number(duration.replace(/s$/, ""));
}
