// Command benchload calls GetUser at a fixed rate, whatever becomes of the calls (open loop), and says what did.
//
// SIGTERM ends it early. Several callers may load a server at once, each with connections and a rate of its own. A health check runs beside them
// every 50 ms, on a connection of its own.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

// A caller is one client: its connections, and how many calls it makes a second.
type caller struct {
	name        string
	connections int
	rate        float64
}

type outcome struct {
	began   time.Duration // since the start of the load
	seconds float64
	code    string
}

type summary struct {
	Calls map[string]int     `json:"calls"` // by status
	OK    map[string]float64 `json:"ok_ms"` // percentiles of the latency, in milliseconds
	Other map[string]float64 `json:"other_ms"`
	// Of each second: how many calls were begun, and how many of them succeeded.
	Begun     []int `json:"begun"`
	Succeeded []int `json:"succeeded"`
	Skipped   int64 `json:"skipped"` // calls that this program was too slow to make
}

func main() {
	address := flag.String("address", "", "HOST:PORT of the server")
	callers := flag.String("callers", "one:4:1000", "NAME:CONNECTIONS:CALLS_PER_SECOND, separated by commas")
	seconds := flag.Float64("seconds", 5, "how long to load it")
	after := flag.Float64("after", 0, "seconds to go on at a tenth of the rate after that")
	deadline := flag.Duration("deadline", time.Second, "the deadline of each call")
	users := flag.Int("users", 1, "how many users to ask for: user0, user1, …; with 1 it is johndoe")
	inFlight := flag.Int64("in-flight", 50_000, "the most calls in flight, so that this program ends")
	plain := flag.Bool("plain", false, "grpc.NewClient as it is: gRPC repeats calls that the server has not processed (transparent retries)")
	flag.Parse()
	ended, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)

	results := map[string]*summary{}
	var all sync.WaitGroup
	var lock sync.Mutex
	stop := make(chan struct{})
	health := make(chan *summary)
	go func() { health <- checkHealth(*address, stop) }()
	for _, text := range strings.Split(*callers, ",") {
		var one caller
		fields := strings.Split(text, ":")
		if len(fields) != 3 {
			log.Fatalf("-callers: %q isn't NAME:CONNECTIONS:CALLS_PER_SECOND", text)
		}
		one.name = fields[0]
		if _, err := fmt.Sscan(fields[1]+" "+fields[2], &one.connections, &one.rate); err != nil {
			log.Fatalf("-callers: %v", err)
		}
		all.Add(1)
		go func() {
			defer all.Done()
			found := load(ended, *address, *plain, one, *seconds, *after, *deadline, *users, *inFlight)
			lock.Lock()
			defer lock.Unlock()
			results[one.name] = found
		}()
	}
	all.Wait()
	close(stop)
	results["health"] = <-health
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatal(err)
	}
}

func connect(address string, plain bool) *grpc.ClientConn {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if !plain {
		options = append(options, grpc.WithDisableServiceConfig(), grpc.WithDisableRetry())
	}
	connection, err := grpc.NewClient(address, options...)
	if err != nil {
		log.Fatal(err)
	}
	return connection
}

func load(ended context.Context, address string, plain bool, who caller, seconds, after float64, deadline time.Duration, users int, most int64) *summary {
	clients := make([]userprofilev1.UserProfileServiceClient, who.connections)
	for i := range clients {
		connection := connect(address, plain)
		defer connection.Close()
		clients[i] = userprofilev1.NewUserProfileServiceClient(connection)
		warm, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, _ = clients[i].GetUser(warm, &userprofilev1.GetUserRequest{Username: "johndoe"})
		cancel()
	}
	var running sync.WaitGroup
	var lock sync.Mutex
	var outcomes []outcome
	var flying, skipped atomic.Int64
	call := func(number int, began time.Duration) {
		defer running.Done()
		defer flying.Add(-1)
		username := "johndoe"
		if users > 1 {
			username = fmt.Sprintf("user%d", number%users)
		}
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		start := time.Now()
		_, err := clients[number%len(clients)].GetUser(ctx, &userprofilev1.GetUserRequest{Username: username})
		took := time.Since(start).Seconds()
		lock.Lock()
		defer lock.Unlock()
		outcomes = append(outcomes, outcome{began, took, status.Code(err).String()})
	}
	start := time.Now()
	number := 0
	due := 0.0 // calls that should have been made by now
	last := 0.0
	for {
		time.Sleep(500 * time.Microsecond)
		now := time.Since(start).Seconds()
		if now > seconds+after || ended.Err() != nil {
			break
		}
		rate := who.rate
		if now > seconds {
			rate /= 10
		}
		due += rate * (now - last)
		last = now
		for ; float64(number) < due; number++ {
			if flying.Load() >= most {
				skipped.Add(1)
				continue
			}
			flying.Add(1)
			running.Add(1)
			go call(number, time.Since(start))
		}
	}
	running.Wait()
	return summarize(outcomes, int(time.Since(start).Seconds()+0.999), skipped.Load())
}

// checkHealth asks every 50 ms.
func checkHealth(address string, stop <-chan struct{}) *summary {
	connection := connect(address, false)
	defer connection.Close()
	client := healthpb.NewHealthClient(connection)
	var outcomes []outcome
	start := time.Now()
	for {
		select {
		case <-stop:
			return summarize(outcomes, int(time.Since(start).Seconds()+0.999), 0)
		case <-time.After(50 * time.Millisecond):
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		began := time.Now()
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
		outcomes = append(outcomes, outcome{time.Since(start), time.Since(began).Seconds(), status.Code(err).String()})
		cancel()
	}
}

func summarize(outcomes []outcome, seconds int, skipped int64) *summary {
	found := &summary{Calls: map[string]int{}, Begun: make([]int, seconds+1), Succeeded: make([]int, seconds+1), Skipped: skipped}
	var ok, other []float64
	for _, one := range outcomes {
		found.Calls[one.code]++
		second := min(int(one.began.Seconds()), seconds)
		found.Begun[second]++
		if one.code == "OK" {
			found.Succeeded[second]++
			ok = append(ok, one.seconds*1000)
		} else {
			other = append(other, one.seconds*1000)
		}
	}
	found.OK = percentiles(ok)
	found.Other = percentiles(other)
	return found
}

func percentiles(values []float64) map[string]float64 {
	sort.Float64s(values)
	found := map[string]float64{}
	if len(values) == 0 {
		return found
	}
	for name, share := range map[string]float64{"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1} {
		found[name] = values[min(int(share*float64(len(values))), len(values)-1)]
	}
	return found
}
