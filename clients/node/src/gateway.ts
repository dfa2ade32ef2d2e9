import { STATUS_CODES } from "node:http";

const MEANING = new Map([
  [401, "the token is missing or wrong"],
  [403, "it lets this call, or this caller, not through"],
  [404, "it has no route to the service"],
  [429, "it takes fewer calls than these"],
  [502, "it gets no answer from the service"],
  [503, "the service is not available to it"],
  [504, "the service took longer than it waits"],
]);

/** Returns a message, or what it means if it is gRPC's for an HTTP status. */
export function inWords(message: string): string {
  const match = /^Received HTTP status code (\d{3})$/.exec(message);
  if (!match) return message;
  const name = STATUS_CODES[match[1]!];
  const meaning = MEANING.get(Number(match[1]));
  return (
    `A gateway answered HTTP ${match[1]}${name ? ` (${name})` : ""}` +
    ` in place of the service${meaning ? `: ${meaning}` : ""}.`
  );
}
