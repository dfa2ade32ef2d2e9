package example.userprofile.client;

import com.google.protobuf.FieldMask;
import io.grpc.Metadata;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * Options of a request. They are immutable; each method returns changed ones, as in {@code
 * RequestOptions.DEFAULT.withFields("email").withTimeout(Duration.ofSeconds(1))}.
 */
public final class RequestOptions {

  /** All fields, and whatever else the client was built with. */
  public static final RequestOptions DEFAULT =
      new RequestOptions(null, null, null, null, new Metadata());

  /** A bound with which every request fits the server's limit of 64 KiB. */
  private static final int MAX_FIELDS_LENGTH = 4096;

  private final @Nullable List<String> fields;
  final @Nullable Duration timeout;
  final @Nullable Boolean waitForReady;
  final @Nullable String requestId;
  final Metadata metadata;

  private RequestOptions(
      @Nullable List<String> fields,
      @Nullable Duration timeout,
      @Nullable Boolean waitForReady,
      @Nullable String requestId,
      Metadata metadata) {
    this.fields = fields;
    this.timeout = timeout;
    this.waitForReady = waitForReady;
    this.requestId = requestId;
    this.metadata = metadata;
  }

  /**
   * Requests some fields. The server sends no others; the username is always returned.
   *
   * @param fields their names in the contract, for example {@code full_name}; {@code *} is all
   * @return the options
   */
  public RequestOptions withFields(String... fields) {
    return withFields(List.of(fields));
  }

  /**
   * Requests some fields. The server sends no others; the username is always returned.
   *
   * @param fields their names in the contract, for example {@code full_name}; {@code *} is all
   * @return the options
   */
  public RequestOptions withFields(Collection<String> fields) {
    if (fields.stream().mapToInt(String::length).sum() > MAX_FIELDS_LENGTH) {
      throw new IllegalArgumentException("the names of the fields are too long");
    }
    return new RequestOptions(List.copyOf(fields), timeout, waitForReady, requestId, metadata);
  }

  /**
   * Sets the timeout of each call, retries included, instead of the client's.
   *
   * @param timeout more than zero, and at most a day
   * @return the options
   */
  public RequestOptions withTimeout(Duration timeout) {
    Calls.checkTimeout(timeout);
    return new RequestOptions(fields, timeout, waitForReady, requestId, metadata);
  }

  /**
   * Sets whether calls wait until a server can be reached, instead of the client's setting.
   *
   * @param waitForReady whether they wait, at most until their timeout
   * @return the options
   */
  public RequestOptions withWaitForReady(boolean waitForReady) {
    return new RequestOptions(fields, timeout, waitForReady, requestId, metadata);
  }

  /**
   * Sets the id that identifies the call in the server's log, instead of a random one.
   *
   * @param requestId 1 to 128 visible ASCII characters
   * @return the options
   */
  public RequestOptions withRequestId(String requestId) {
    if (!Failures.REQUEST_ID.test(requestId)) {
      throw new IllegalArgumentException("a request id has 1 to 128 visible ASCII characters");
    }
    return new RequestOptions(fields, timeout, waitForReady, requestId, metadata);
  }

  /**
   * Sends metadata with the call, in addition to the client's.
   *
   * @param metadata the metadata, which is copied
   * @return the options
   */
  public RequestOptions withMetadata(Metadata metadata) {
    return new RequestOptions(fields, timeout, waitForReady, requestId, Calls.copyOf(metadata));
  }

  /** Returns what selects the fields, empty for all. */
  Optional<FieldMask> readMask() {
    if (fields == null) {
      return Optional.empty();
    }
    // With the username, because an empty mask would request all fields.
    var paths = Stream.concat(Stream.of("username"), fields.stream()).distinct().toList();
    return Optional.of(FieldMask.newBuilder().addAllPaths(paths).build());
  }
}
