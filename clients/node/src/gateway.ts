import { STATUS_CODES } from "node:http";

const MEANING = new Map([
  [401, "the token is missing or wrong"],
  [403, "it does not allow this call or this caller"],
  [404, "it has no route to the service"],
  [429, "it limits the rate of calls"],
  [502, "it got no valid response from the service"],
  [503, "it can't reach the service"],
  [504, "it got no response from the service in time"],
]);

const HTTP_STATUS = /^Received HTTP status code (\d{3})$/;
const OUTAGES = new Set(["502", "503", "504"]);

/** Whether a message is gRPC's for a gateway that can't reach the service. */
export function isOutage(message: string): boolean {
  const match = HTTP_STATUS.exec(message);
  return OUTAGES.has(match?.[1] ?? "");
}

/** Replaces gRPC's message for a bare HTTP status by its meaning. */
export function inWords(message: string): string {
  const [, http] = HTTP_STATUS.exec(message) ?? [];
  if (http === undefined) return message;
  const name = STATUS_CODES[http];
  const meaning = MEANING.get(Number(http));
  return (
    `A gateway returned HTTP ${http}${name ? ` (${name})` : ""}` +
    ` in place of the service${meaning ? `: ${meaning}` : ""}.`
  );
}
