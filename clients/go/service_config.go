package userprofile

import (
	_ "embed"
	"encoding/json"

	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

// contractsServiceConfig is the load balancing and retry policy of the clients
// of all languages.
//
//go:embed gen/userprofile/v1/service_config.json
var contractsServiceConfig []byte

func serviceConfig(healthChecking bool) (string, error) {
	if !healthChecking {
		return string(contractsServiceConfig), nil
	}
	var config map[string]any
	if err := json.Unmarshal(contractsServiceConfig, &config); err != nil {
		return "", err
	}
	config["healthCheckConfig"] = map[string]string{"serviceName": userprofilev1.UserProfileService_ServiceDesc.ServiceName}
	text, err := json.Marshal(config)
	return string(text), err
}
