// Command conformance is the Go client behind the protocol of
// tests/client_conformance: it reads a request per line and writes a response per
// line, in JSON.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/encoding/protojson"

	userprofile "userprofile.example/go"
)

type request struct {
	GetUser *struct {
		options
		Username string `json:"username"`
	} `json:"get_user"`
	GetUsers *struct {
		options
		Usernames []string `json:"usernames"`
	} `json:"get_users"`
}

type options struct {
	Fields    []string `json:"fields"`
	TimeoutMS int64    `json:"timeout_ms"`
}

type outcome struct {
	Username *string         `json:"username,omitempty"`
	User     json.RawMessage `json:"user,omitempty"`
	Error    *failure        `json:"error,omitempty"`
}

type failure struct {
	Code      string `json:"code"`
	Reason    string `json:"reason,omitempty"`
	Field     string `json:"field,omitempty"`
	Retryable bool   `json:"retryable,omitempty"`
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("one argument is needed: HOST:PORT")
	}
	client, err := userprofile.NewClient(args[0], userprofile.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	write := json.NewEncoder(out)
	for lines := bufio.NewReader(in); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		} else if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		response, err := respond(client, line)
		if err != nil {
			return err
		}
		if err := write.Encode(response); err != nil {
			return err
		}
	}
}

func respond(client *userprofile.Client, line []byte) (any, error) {
	var asked request
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return nil, fmt.Errorf("not a request: %w", err)
	}
	switch {
	case asked.GetUser != nil:
		ctx, cancel, chosen := asked.GetUser.call()
		defer cancel()
		user, err := client.GetUser(ctx, asked.GetUser.Username, chosen...)
		return outcomeOf(user, err)
	case asked.GetUsers != nil:
		ctx, cancel, chosen := asked.GetUsers.call()
		defer cancel()
		found, err := client.GetUsers(ctx, asked.GetUsers.Usernames, chosen...)
		if err != nil {
			return outcomeOf(nil, err)
		}
		results := make([]outcome, len(found))
		for i, result := range found {
			if results[i], err = outcomeOf(result.User, result.Err); err != nil {
				return nil, err
			}
			results[i].Username = &result.Username
		}
		return map[string][]outcome{"results": results}, nil
	}
	return nil, fmt.Errorf("not a request: %s", line)
}

func (o options) call() (context.Context, context.CancelFunc, []userprofile.CallOption) {
	var chosen []userprofile.CallOption
	if o.Fields != nil {
		chosen = append(chosen, userprofile.WithFields(o.Fields...))
	}
	if o.TimeoutMS == 0 {
		return context.Background(), func() {}, chosen
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(o.TimeoutMS)*time.Millisecond)
	return ctx, cancel, chosen
}

func outcomeOf(user *userprofile.User, err error) (outcome, error) {
	if err == nil {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(user)
		return outcome{User: text}, err
	}
	var seen *userprofile.Error
	if !errors.As(err, &seen) {
		return outcome{}, err
	}
	f := &failure{Code: code.Code(seen.Code).String(), Reason: seen.Reason, Retryable: seen.Retryable}
	if len(seen.Violations) > 0 {
		f.Field = seen.Violations[0].GetField()
	}
	return outcome{Error: f}, nil
}
