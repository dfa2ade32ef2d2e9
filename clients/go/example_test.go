package userprofile_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	userprofile "userprofile.example/go"
)

func Example() {
	target := os.Getenv("USERPROFILE_TARGET")

	client, err := userprofile.NewClient(target, userprofile.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	for _, username := range []string{"johndoe", "nobody"} {
		user, err := client.GetUser(context.Background(), username)
		if errors.Is(err, userprofile.ErrUserNotFound) {
			fmt.Println("there is no", username)
		} else if failure, ok := errors.AsType[*userprofile.Error](err); ok {
			fmt.Println(failure.Code, failure.Reason, failure.RequestID)
		} else if user.Email != nil { // a field without a value is nil
			fmt.Println(user.GetEmail())
		}
	}
	// Output:
	// johndoe@example.com
	// there is no nobody
}
