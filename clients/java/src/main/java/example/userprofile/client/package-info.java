/**
 * Client of a userprofile service; begin with {@link UserProfileClient}.
 *
 * @serial exclude
 */
@NullMarked
package example.userprofile.client;

import org.jspecify.annotations.NullMarked;
