import type { TestContext } from "node:test";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  status,
} from "@grpc/grpc-js";
import { ErrorInfo } from "../src/gen/google/rpc/error_details.js";
import { Status } from "../src/gen/google/rpc/status.js";
import {
  type BatchGetUsersRequest,
  type BatchGetUsersResponse,
  type BatchGetUsersResponse_Result,
  type GetUserRequest,
  type GetUserResponse,
  UserProfileServiceService,
} from "../src/gen/userprofile/v1/user_profile_service.js";
import { Reason } from "../src/index.js";

export type GetUserCall = ServerUnaryCall<GetUserRequest, GetUserResponse>;

/** The error that a server of these tests returns. */
export interface Failure {
  code: status;
  trailers?: Record<string, string | Buffer>;
}

/**
 * Serves until the test is over; returns the port on 127.0.0.1. GetUser returns
 * what `getUser` returns, BatchGetUsers always `batch`, or everybody.
 */
export async function serve(
  t: TestContext,
  getUser: (call: GetUserCall) => Failure | GetUserResponse | undefined = () =>
    undefined,
  credentials = ServerCredentials.createInsecure(),
  batch?: BatchGetUsersResponse,
): Promise<number> {
  const server = new Server();
  t.after(() => server.forceShutdown());
  server.addService(UserProfileServiceService, {
    getUser(
      call: GetUserCall,
      callback: (error: object | null, value?: GetUserResponse) => void,
    ) {
      const response = getUser(call) ?? {
        user: { username: call.request.username },
      };
      if (!("code" in response)) {
        callback(null, response);
        return;
      }
      const metadata = new Metadata();
      for (const [name, value] of Object.entries(response.trailers ?? {}))
        metadata.set(name, value);
      callback({ code: response.code, details: "as the test wants", metadata });
    },
    batchGetUsers(
      { request }: { request: BatchGetUsersRequest },
      callback: (error: null, value: BatchGetUsersResponse) => void,
    ) {
      callback(null, batch ?? { results: request.usernames.map(found) });
    },
  });
  return new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", credentials, (error, port) =>
      error ? reject(error) : resolve(port),
    );
  });
}

/** A failure with these bytes where the details of an error belong. */
export function withDetails(details: Uint8Array): Failure {
  const trailers = { "grpc-status-details-bin": Buffer.from(details) };
  return { code: status.NOT_FOUND, trailers };
}

/** The error that the service of this domain returns for an unknown user. */
export function notFound(domain: string): Failure {
  const info = ErrorInfo.encode({
    domain,
    reason: Reason.USER_NOT_FOUND,
    metadata: {},
  }).finish();
  const detail = {
    typeUrl: `type.googleapis.com/${ErrorInfo.$type}`,
    value: Buffer.from(info),
  };
  const error = { code: status.NOT_FOUND, message: "", details: [detail] };
  return withDetails(Status.encode(error).finish());
}

/** A result of a batch for a user who exists. */
export function found(username: string): BatchGetUsersResponse_Result {
  return { username, outcome: { $case: "user", value: { username } } };
}
