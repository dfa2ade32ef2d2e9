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

// httpStatus matches gRPC's message for a plain HTTP response.
var httpStatus = regexp.MustCompile(`unexpected HTTP status code received from server: (\d{3})`)

var httpMeaning = map[int]string{
	401: "the token is missing or wrong",
	403: "it does not allow this call or this caller",
	404: "it has no route to the service",
	429: "it limits the rate of calls",
	502: "it got no valid response from the service",
	503: "it can't reach the service",
	504: "it got no response from the service in time",
}

// lastFailure is the prefix of gRPC's message if no server became reachable
// before the deadline.
const lastFailure = "latest balancer error: "

// inWords replaces gRPC's technical messages by their meaning.
func inWords(s *status.Status) *status.Status {
	if seen, ok := strings.CutPrefix(s.Message(), lastFailure); ok && s.Code() == codes.DeadlineExceeded {
		return neverReached(seen)
	}
	match := httpStatus.FindStringSubmatch(s.Message())
	if match == nil {
		return s
	}
	number, _ := strconv.Atoi(match[1])
	text := fmt.Sprintf("A gateway returned HTTP %d", number)
	if name := http.StatusText(number); name != "" {
		text += " (" + name + ")"
	}
	text += " in place of the service"
	if meaning := httpMeaning[number]; meaning != "" {
		text += ": " + meaning
	}
	return status.New(s.Code(), text+".")
}

func neverReached(lastError string) *status.Status {
	return status.New(codes.Unavailable, "No server could be reached in time: "+lastError)
}
