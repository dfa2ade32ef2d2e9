/** Client of a userprofile service; begin with {@link UserProfileClient}. */
@NullMarked
package example.userprofile.client;

import org.jspecify.annotations.NullMarked;
