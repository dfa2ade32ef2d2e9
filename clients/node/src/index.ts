export { status } from "@grpc/grpc-js";
export {
  type BatchResult,
  type CallOptions,
  type ClientOptions,
  UserProfileClient,
} from "./client.js";
export type { ConnectionOptions, TlsOptions } from "./connection.js";
export { type ErrorDetails, UserProfileError } from "./errors.js";
export type { TlsFiles } from "./tls_files.js";
export { Reason } from "./reason.js";
export type { User } from "./gen/userprofile/v1/user_profile.js";
