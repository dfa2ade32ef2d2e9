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
  type BatchGetUsersResponse,
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
 * what `getUser` returns, BatchGetUsers always `batch`.
 */
export async function serve(
  t: TestContext,
  getUser: (call: GetUserCall) => Failure | GetUserResponse | undefined = () =>
    undefined,
  credentials = ServerCredentials.createInsecure(),
  batch: BatchGetUsersResponse = { results: [] },
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
      if (!("code" in response)) return callback(null, response);
      const metadata = new Metadata();
      for (const [name, value] of Object.entries(response.trailers ?? {}))
        metadata.set(name, value);
      callback({ code: response.code, details: "as the test wants", metadata });
    },
    batchGetUsers(
      _call: unknown,
      callback: (
        error: null,
        value: BatchGetUsersResponse,
        trailer: Metadata,
      ) => void,
    ) {
      const trailer = new Metadata();
      trailer.set("x-request-id", "the batch");
      callback(null, batch, trailer);
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
