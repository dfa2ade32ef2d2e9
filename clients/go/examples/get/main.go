// Command get prints the e-mail addresses of two users.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	userprofile "userprofile.example/go"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	target := cmp.Or(os.Getenv("USERPROFILE_TARGET"), "localhost:50051")
	client, err := userprofile.NewClient(target, userprofile.Config{Token: os.Getenv("USERPROFILE_TOKEN")})
	if err != nil {
		return err
	}
	defer client.Close()

	for _, username := range []string{"johndoe", "nobody"} {
		user, err := client.GetUser(ctx, username)
		switch {
		case errors.Is(err, userprofile.ErrUserNotFound):
			fmt.Println("there is no", username)
		case err != nil:
			return err
		case user.Email != nil: // a field without a value is nil
			fmt.Println(user.GetEmail())
		}
	}
	return nil
}
