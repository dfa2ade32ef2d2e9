package example.userprofile.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import example.userprofile.v1.ErrorReason;
import io.grpc.Metadata;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/** What is read from errors, the odd ones included. */
class FailureTest {

  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  private static final Call CALL = Environment.call("the call's");

  private static final Any NOT_FOUND = errorInfo("userprofile", "USER_NOT_FOUND");
  private static final Any REQUEST = Any.pack(RequestInfo.newBuilder().setRequestId("abc").build());

  @Test
  void detailsAreRead() {
    var violation =
        BadRequest.FieldViolation.newBuilder().setField("username").setDescription("is empty");
    var badRequest = Any.pack(BadRequest.newBuilder().addFieldViolations(violation).build());
    var failure =
        from(
            Code.INVALID_ARGUMENT,
            errorInfo("userprofile", "INVALID_USERNAME"),
            badRequest,
            REQUEST);

    assertEquals(
        Failure.builder(Code.INVALID_ARGUMENT, "A message.")
            .reason(ErrorReason.ERROR_REASON_INVALID_USERNAME)
            .violations(List.of(new Failure.Violation("username", "is empty")))
            .requestId("abc")
            .build(),
        failure);
    assertEquals(
        "INVALID_ARGUMENT (INVALID_USERNAME): A message. [username: is empty] [request id abc]",
        failure.toString());
  }

  @Test
  void notFoundIsTheServicesWordOnly() {
    assertTrue(from(Code.NOT_FOUND, NOT_FOUND).isUserNotFound());
    assertFalse(from(Code.NOT_FOUND).isUserNotFound());
    assertFalse(from(Code.NOT_FOUND, errorInfo("proxy", "USER_NOT_FOUND")).isUserNotFound());
    assertFalse(from(Code.UNAVAILABLE, NOT_FOUND).isUserNotFound());
  }

  @Test
  void aReasonOfAnotherDomainIsNotOurs() {
    assertEquals(Optional.empty(), from(Code.ABORTED, errorInfo("proxy", "BUSY")).reason());
  }

  @Test
  void unavailableWithoutAReasonIsUnreachable() {
    var unreachable = Optional.of(Failure.UNREACHABLE);
    assertEquals(unreachable, from(Code.UNAVAILABLE).reason());
    assertEquals(unreachable, from(Code.UNAVAILABLE, errorInfo("proxy", "BUSY")).reason());
    assertEquals(
        Optional.of("STORE_UNAVAILABLE"),
        from(Code.UNAVAILABLE, errorInfo("userprofile", "STORE_UNAVAILABLE")).reason());
  }

  @Test
  void anExceptionCanBeSerialized() throws IOException, ClassNotFoundException {
    var cause = StatusProto.toStatusRuntimeException(status(Code.NOT_FOUND, NOT_FOUND, REQUEST));
    var error = CALL.failed(cause);
    var bytes = new ByteArrayOutputStream();
    try (var out = new ObjectOutputStream(bytes)) {
      out.writeObject(error);
    }
    try (var in = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
      var read = (UserProfileException) in.readObject();
      assertEquals(error.failure(), read.failure());
      assertEquals(error.getMessage(), read.getMessage());
      assertArrayEquals(error.getStackTrace(), read.getStackTrace());
    }
  }

  @Test
  void aMalformedDetailTakesNothingFromTheOthers() {
    var malformed = NOT_FOUND.toBuilder().setValue(ByteString.copyFromUtf8("\n")).build();
    var failure = from(Code.NOT_FOUND, malformed, REQUEST);

    assertEquals(Optional.empty(), failure.reason());
    assertEquals(Optional.of("abc"), failure.requestId());
  }

  @Test
  void malformedDetailsTakeNothingFromTheStatus() {
    assertEquals(bare(Code.DATA_LOSS), from(Code.DATA_LOSS, new byte[] {'\n'}));
  }

  @Test
  void detailsThatContradictTheStatusAreNotBelieved() {
    byte[] other = status(Code.NOT_FOUND, NOT_FOUND).toByteArray();

    assertEquals(bare(Code.DATA_LOSS), from(Code.DATA_LOSS, other));
  }

  @Test
  void aRetryHelpsWhereTheServiceSaysSoOrWhereItSentNothing() {
    var retry = Any.pack(RetryInfo.getDefaultInstance());
    var overloaded = errorInfo("userprofile", "OVERLOADED");
    assertTrue(from(Code.RESOURCE_EXHAUSTED, overloaded, retry).retryable());
    assertFalse(from(Code.UNAVAILABLE, errorInfo("userprofile", "STORE_TIMEOUT")).retryable());
    assertFalse(from(Code.ABORTED, errorInfo("proxy", "BUSY"), retry).retryable());
    assertTrue(from(Code.UNAVAILABLE).retryable());
    assertTrue(pushedBack("1000").retryable());
    assertFalse(pushedBack("-1").retryable());
    assertFalse(pushedBack("soon").retryable());
  }

  @Test
  void aCallThatGrpcDroppedIsRefused() {
    var refused = Optional.of(Failure.REFUSED);
    assertEquals(refused, from(Code.CANCELLED).reason());
    assertTrue(from(Code.CANCELLED).retryable());
    assertEquals(refused, from(Code.RESOURCE_EXHAUSTED).reason());
    var large = Code.RESOURCE_EXHAUSTED.toStatus().withDescription("message larger than max");
    assertEquals(Optional.empty(), Failures.from(large.asRuntimeException(), CALL).reason());
  }

  @Test
  void whatTheClientKnowsIsInTheMessage() {
    var late = Failures.from(Code.DEADLINE_EXCEEDED.toStatus().asRuntimeException(), CALL);
    assertEquals(
        "no response from localhost:1 within 60.0 s (DEADLINE_EXCEEDED)", late.message());
    var other = Failures.from(Code.UNIMPLEMENTED.toStatus().asRuntimeException(), CALL);
    assertTrue(other.message().contains("doesn't have this method"), other::message);
  }

  private static Failure pushedBack(String pushback) {
    var trailers = new Metadata();
    trailers.put(
        Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER), pushback);
    return Failures.from(Code.UNAVAILABLE.toStatus().asRuntimeException(trailers), CALL);
  }

  private static Any errorInfo(String domain, String reason) {
    return Any.pack(ErrorInfo.newBuilder().setDomain(domain).setReason(reason).build());
  }

  private static Status status(Code code, Any... details) {
    return Status.newBuilder()
        .setCode(code.value())
        .setMessage("A message.")
        .addAllDetails(List.of(details))
        .build();
  }

  private static Failure from(Code code, Any... details) {
    return Failures.from(StatusProto.toStatusRuntimeException(status(code, details)), CALL);
  }

  private static Failure from(Code code, byte[] details) {
    var trailers = new Metadata();
    trailers.put(DETAILS, details);
    var status = code.toStatus().withDescription("A message.");
    return Failures.from(new StatusRuntimeException(status, trailers), CALL);
  }

  private static Failure bare(Code code) {
    return Failure.builder(code, "A message.").requestId(CALL.requestId()).build();
  }
}
