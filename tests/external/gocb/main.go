// Command gocb does what an application does with a bucket, by Couchbase's Go SDK: it shows that the test
// node serves more than the one SDK that the service uses.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/couchbase/gocb/v2"
)

type profile struct {
	Username string `json:"username"`
	Email    string `json:"email"`
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(connection, username, password string) error {
	cluster, err := gocb.Connect(connection, gocb.ClusterOptions{
		Authenticator: gocb.PasswordAuthenticator{Username: username, Password: password},
	})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cluster.Close(nil)
	bucket := cluster.Bucket("default")
	ready := &gocb.WaitUntilReadyOptions{ServiceTypes: []gocb.ServiceType{gocb.ServiceTypeKeyValue}}
	if err := bucket.WaitUntilReady(5*time.Second, ready); err != nil {
		return fmt.Errorf("wait until ready: %w", err)
	}
	collections := map[string]*gocb.Collection{
		"default": bucket.DefaultCollection(),
		"named":   bucket.Scope("app").Collection("users"),
	}
	for name, collection := range collections {
		if err := crud(collection); err != nil {
			return fmt.Errorf("%s collection: %w", name, err)
		}
	}
	return nil
}

func crud(collection *gocb.Collection) error {
	key := "userprofile::gopher"
	if _, err := collection.Get(key, nil); !errors.Is(err, gocb.ErrDocumentNotFound) {
		return fmt.Errorf("get of nothing: %v", err)
	}
	inserted, err := collection.Insert(key, profile{"gopher", "a@example.com"}, nil)
	if err != nil {
		return fmt.Errorf("insert: %w", err)
	}
	if _, err := collection.Insert(key, profile{}, nil); !errors.Is(err, gocb.ErrDocumentExists) {
		return fmt.Errorf("second insert: %v", err)
	}
	replaced, err := collection.Replace(key, profile{"gopher", "b@example.com"}, &gocb.ReplaceOptions{Cas: inserted.Cas()})
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	stale := &gocb.ReplaceOptions{Cas: inserted.Cas()}
	if _, err := collection.Replace(key, profile{}, stale); !errors.Is(err, gocb.ErrCasMismatch) {
		return fmt.Errorf("replace with a stale CAS: %v", err)
	}
	if _, err := collection.Upsert(key, profile{"gopher", "c@example.com"}, nil); err != nil {
		return fmt.Errorf("upsert: %w", err)
	}
	got, err := collection.Get(key, nil)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	var found profile
	if err := got.Content(&found); err != nil || found.Email != "c@example.com" {
		return fmt.Errorf("content: %v, %v", found, err)
	}
	if got.Cas() == replaced.Cas() {
		return errors.New("the CAS didn't change")
	}
	exists, err := collection.Exists(key, nil)
	if err != nil || !exists.Exists() {
		return fmt.Errorf("exists: %v", err)
	}
	for i := range 200 {
		if _, err := collection.Upsert(fmt.Sprintf("key%d", i), i, nil); err != nil {
			return fmt.Errorf("upsert %d: %w", i, err)
		}
	}
	if _, err := collection.Remove(key, nil); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if _, err := collection.Remove(key, nil); !errors.Is(err, gocb.ErrDocumentNotFound) {
		return fmt.Errorf("second remove: %v", err)
	}
	return nil
}
