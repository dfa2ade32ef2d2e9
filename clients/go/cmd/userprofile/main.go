// Command userprofile prints the public profile of a user:
//
//	userprofile get [flags] USERNAME
//
// The exit status is 0 if the user was found, 3 if there is no such user, 2 for
// a usage error and 1 for any other error.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	userprofile "userprofile.example/go"
)

const usage = `usage: userprofile get [flags] USERNAME

The environment variable USERPROFILE_TOKEN, if set, is sent as a bearer token.

`

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	config := userprofile.Config{
		Token:    os.Getenv("USERPROFILE_TOKEN"),
		FailFast: true, // people should see soon that the service is down
	}
	flags := flag.NewFlagSet("userprofile get", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	target := flags.String("target", cmp.Or(os.Getenv("USERPROFILE_TARGET"), "localhost:50051"), "address of the service, `host:port` or unix:path; USERPROFILE_TARGET sets the default")
	flags.DurationVar(&config.Timeout, "timeout", userprofile.DefaultTimeout, "how long to wait for the response")
	useTLS := flags.Bool("tls", false, "use TLS")
	ca := flags.String("ca", "", "PEM `file` of the CA to trust instead of the system's; turns TLS on")
	cert := flags.String("cert", "", "PEM `file` of the client certificate; turns TLS on")
	key := flags.String("key", "", "PEM `file` of the client certificate's key; turns TLS on")

	if len(args) == 0 || args[0] != "get" {
		flags.Usage()
		return 2
	}
	if err := flags.Parse(args[1:]); err != nil {
		return 2
	}
	if flags.NArg() != 1 {
		flags.Usage()
		return 2
	}
	empty := ""
	flags.Visit(func(given *flag.Flag) {
		if slices.Contains([]string{"ca", "cert", "key"}, given.Name) && given.Value.String() == "" { // probably an unset shell variable, not a request for the default
			empty = given.Name
		}
	})
	if empty != "" {
		fmt.Fprintf(stderr, "-%s is empty\n", empty)
		return 2
	}
	if *useTLS || *ca != "" || *cert != "" || *key != "" {
		loaded, err := userprofile.LoadTLS(*ca, *cert, *key)
		if err != nil {
			fmt.Fprintln(stderr, err)
			return 2
		}
		config.TLS = loaded
	}

	user, err := get(*target, config, flags.Arg(0))
	if err != nil {
		fmt.Fprintln(stderr, err)
		if errors.Is(err, userprofile.ErrUserNotFound) {
			return 3
		}
		return 1
	}
	show(stdout, user)
	return 0
}

func get(target string, config userprofile.Config, username string) (*userprofile.User, error) {
	client, err := userprofile.NewClient(target, config)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.GetUser(context.Background(), username)
}

// show quotes text from profiles, which could contain terminal escapes.
func show(w io.Writer, user *userprofile.User) {
	message := user.ProtoReflect()
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		name, value := strings.ReplaceAll(string(field.Name()), "_", " "), "-"
		if message.Has(field) {
			value = fmt.Sprintf("%#v", message.Get(field).Interface())
		}
		fmt.Fprintf(w, "%-10s %s\n", name, value)
	}
}
