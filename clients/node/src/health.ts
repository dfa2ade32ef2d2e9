import { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire";
import type { Method } from "./caller.js";

/** `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING` */
const SERVING = 1;

/**
 * Check of the standard protocol (https://grpc.io/docs/guides/health-checking/),
 * whose two messages have one field each. Takes a service, and returns whether
 * it is serving.
 */
export const HEALTH_CHECK: Method<string, boolean> = {
  path: "/grpc.health.v1.Health/Check",
  requestSerialize: (service) =>
    Buffer.from(new BinaryWriter().uint32(0x0a).string(service).finish()),
  responseDeserialize: (bytes) => {
    const reader = new BinaryReader(bytes);
    let status = 0;
    while (reader.pos < reader.len) {
      const [field, type] = reader.tag();
      if (field === 1) status = reader.int32();
      else reader.skip(type);
    }
    return status === SERVING;
  },
};
