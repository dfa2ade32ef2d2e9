package example.userprofile.client;

import io.grpc.EquivalentAddressGroup;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.StatusOr;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.List;
import java.util.Map;

/**
 * Resolves every target of the scheme {@code fixed} to the same addresses, with a service config
 * of which the client should take no notice.
 */
final class FixedAddresses extends NameResolverProvider {

  private final List<EquivalentAddressGroup> addresses;

  FixedAddresses(List<InetSocketAddress> addresses) {
    this.addresses = addresses.stream().map(EquivalentAddressGroup::new).toList();
  }

  @Override
  public NameResolver newNameResolver(URI target, NameResolver.Args arguments) {
    return new NameResolver() {
      @Override
      public String getServiceAuthority() {
        return "localhost";
      }

      @Override
      public void start(Listener2 listener) {
        listener.onResult(
            ResolutionResult.newBuilder()
                .setAddressesOrError(StatusOr.fromValue(addresses))
                .setServiceConfig(arguments.getServiceConfigParser().parseServiceConfig(Map.of()))
                .build());
      }

      @Override
      public void shutdown() {}
    };
  }

  @Override
  public String getDefaultScheme() {
    return "fixed";
  }

  @Override
  protected boolean isAvailable() {
    return true;
  }

  @Override
  protected int priority() {
    return 0;
  }
}
