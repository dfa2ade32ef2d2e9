import { ErrorReason } from "./gen/userprofile/v1/error_reason.js";

const PREFIX = "ERROR_REASON_";

type WithoutPrefix<Name> = Name extends `ERROR_REASON_${infer Short}`
  ? Short
  : never;

/** A reason that the contract documents (`error_reason.proto`). */
export type Reason = WithoutPrefix<keyof typeof ErrorReason>;

/** The values of `error.reason`: `Reason.USER_NOT_FOUND`. */
export const Reason = Object.fromEntries(
  Object.keys(ErrorReason)
    .filter((name) => name.startsWith(PREFIX))
    .map((name) => name.slice(PREFIX.length))
    .map((name) => [name, name]),
) as { readonly [Name in Reason]: Name };
