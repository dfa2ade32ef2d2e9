package userprofile

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// httpStatus is in gRPC's message where something answered by plain HTTP.
var httpStatus = regexp.MustCompile(`unexpected HTTP status code received from server: (\d{3})`)

var httpMeaning = map[int]string{
	401: "the token is missing or wrong",
	403: "it lets this call, or this caller, not through",
	404: "it has no route to the service",
	429: "it takes fewer calls than these",
	502: "it gets no answer from the service",
	503: "the service is not available to it",
	504: "the service took longer than it waits",
}

// lastFailure begins gRPC's message where a call waited for a server in vain.
const lastFailure = "latest balancer error: "

// inWords says what has happened where gRPC says what it has seen.
func inWords(s *status.Status) *status.Status {
	if seen, ok := strings.CutPrefix(s.Message(), lastFailure); ok && s.Code() == codes.DeadlineExceeded {
		return status.New(codes.Unavailable, "No server could be reached in time: "+seen)
	}
	match := httpStatus.FindStringSubmatch(s.Message())
	if match == nil {
		return s
	}
	number, _ := strconv.Atoi(match[1])
	text := fmt.Sprintf("A gateway answered HTTP %d", number)
	if name := http.StatusText(number); name != "" {
		text += " (" + name + ")"
	}
	text += " in place of the service"
	if meaning := httpMeaning[number]; meaning != "" {
		text += ": " + meaning
	}
	return status.New(s.Code(), text+".")
}
