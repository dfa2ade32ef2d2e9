# Everything works on a machine that has Python 3.11+, make and the package index, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_STORE := build/demo.db
SECURE := build/secure
# Tools of other languages, for their own targets only.
GRPCURL := .tools/bin/grpcurl
KUSTOMIZE := .tools/bin/kustomize
COMPOSE := .tools/bin/compose-spec
COUCHBASEMOCK := .tools/CouchbaseMock-1.5.27.jar
BENCH := build/bench-go
LOAD := build/bench-load
BASE ?= main
BUF := tools/node_modules/.bin/buf
NODE_CLIENT := clients/node/dist/index.js
PROTOSET := build/userprofile.protoset
# Others' protos that ours import, where buf finds them.
GOOGLEAPIS := build/googleapis/google/rpc

.DEFAULT_GOAL := help
# Else what a failed recipe has left would pass for made: the Node client, say, with an error in its tests.
.DELETE_ON_ERROR:
# Go then compiles a package once, whichever folder it is in.
export GOFLAGS := $(GOFLAGS) -trimpath
# What of the caller's environment would lead the virtual environment's Python astray.
unexport PYTHONHOME PYTHONPATH PYTHONINSPECT PYTHONOPTIMIZE PYTHONSAFEPATH PYTHONWARNINGS
.PHONY: help check bench bench-quick bench-compare setup protos run test test-grpcurl test-setup test-couchbasemock test-couchbase test-gocb test-clients test-client-load test-sqlite-processes test-nginx lint lint-protos format types docs lock clean

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

# These come first: they see whether the virtual environment is there and healthy, and make, complete or repair it.
# Targets of files name them behind a bar, since they are always out of date.
SET_UP = @command -v $(PYTHON) >/dev/null || { echo 'make: $(PYTHON) is not found. Debian and Ubuntu: apt install python3 python3-venv. Another name: make PYTHON=…'; exit 1; }; \
	$(PYTHON) -I tools/set_up.py $(VENV) $(1) $(if $(filter file,$(origin PYTHON)),,--chosen)

setup: ## Make or repair the virtual environment, with all tools and the generated stubs
	$(call SET_UP,dev)

.PHONY: setup-serve setup-bench
setup-serve: # what serving needs, without the tools
	$(call SET_UP,serve)

setup-bench:
	$(call SET_UP,bench)

protos: setup-serve ## Compile protos/ into client/userprofile/v1, if they have changed (setup does it too)

run: setup-serve $(DEMO_STORE) ## Serve a few demo users on 127.0.0.1:50051
	@echo 'Try, in another terminal:'
	@echo '  $(BIN)/userprofile get johndoe'
	@echo "  grpcurl -plaintext -d '{\"username\":\"johndoe\"}' localhost:50051 userprofile.v1.UserProfileService/GetUser"
	@echo
	@exec $(BIN)/userprofile-server serve --store sqlite:///$(DEMO_STORE) --listen 127.0.0.1:50051

.PHONY: run-secure
run-secure: setup-serve $(DEMO_STORE) ## The same with mutual TLS and a policy, for two callers, one of whom sees no e-mail
	@$(BIN)/python demo/secure.py $(SECURE)
	@echo 'Try, in another terminal:'
	@for caller in billing greeter; do \
	    echo "  $(BIN)/userprofile get johndoe --tls-ca $(SECURE)/ca.pem --tls-certificate $(SECURE)/$$caller.pem --tls-key $(SECURE)/$$caller.key"; done
	@echo "  grpcurl -cacert $(SECURE)/ca.pem -cert $(SECURE)/billing.pem -key $(SECURE)/billing.key -d '{\"username\":\"johndoe\"}' localhost:50051 userprofile.v1.UserProfileService/GetUser"
	@echo
	@exec $(BIN)/userprofile-server serve --store sqlite:///$(DEMO_STORE) --listen mtls://127.0.0.1:50051 \
	    --tls-certificate $(SECURE)/server.pem --tls-key $(SECURE)/server.key --tls-client-ca $(SECURE)/ca.pem --policy $(SECURE)/policy.json

$(DEMO_STORE): demo/users.jsonl | setup-serve
	@mkdir -p $(@D)
	@$(BIN)/userprofile-server import demo/users.jsonl --store sqlite:///$@
	@touch $@

check: ## Run everything that CI runs, for half an hour (needs Go, Java, Maven, Node, Rust, and nginx and Prometheus, or root)
	@.ci/run

# Eight workers on two cores, because tests mostly wait.
test: setup ## Run the tests
	@$(BIN)/python -m pytest -n 8 --dist loadgroup

.PHONY: test-fast
test-fast: setup ## Run the tests that need no other process and no cluster
	@$(BIN)/python -m pytest -n 8 --dist loadgroup --fast

.PHONY: test-timing
test-timing: setup ## Judge the promises about time, such as recovery within 3 s, and say so where the machine is too busy for it
	@$(BIN)/python -m pytest --timing

.PHONY: test-mutants
test-mutants: setup ## Change one line at a time, in a copy, and see whether tests notice: of what differs from BASE, or FILES=… SAMPLE=60 SEED=0
	@$(BIN)/python -m tools.try_mutants $(FILES) --against $(BASE) --sample $(or $(SAMPLE),60) --seed $(or $(SEED),0)

.PHONY: test-pythons
test-pythons: ## Run the tests on the newest Python that can be had; ALL=1: on each (root gets what is missing from Debian)
	@.ci/pythons

test-grpcurl: setup $(GRPCURL) $(COUCHBASEMOCK) $(PROTOSET) ## Try the real grpcurl on every store, and every command of the guides (needs Go, Java, Maven and Node)
	@GRPCURL="$$PWD/$(GRPCURL)" COUCHBASEMOCK="$$PWD/$(COUCHBASEMOCK)" $(BIN)/python -m pytest tests/external/check_grpcurl.py tests/external/check_debugging.py

test-couchbasemock: setup $(COUCHBASEMOCK) ## Run the stores' contract on CouchbaseMock (needs Java and Maven)
	@COUCHBASEMOCK="$$PWD/$(COUCHBASEMOCK)" $(BIN)/python -m pytest tests/store_contract tests/external/check_couchbasemock.py

test-couchbase: setup ## Run it on the cluster at TEST_COUCHBASE; see docs/couchbase.md
	@test -n "$$TEST_COUCHBASE" || { echo 'TEST_COUCHBASE=couchbase://HOST/BUCKET is needed; see docs/couchbase.md'; exit 2; }
	@TEST_ON_COUCHBASE=1 $(BIN)/python -m pytest tests/store_contract

test-clients: setup lint-go lint-node ## Try the Go, Node and Java clients on the real server (needs all three)
	@$(BIN)/python -m pytest tests/external/check_clients.py

.PHONY: lint-go go-module
# Vetting with the oldest Go sees what only newer standard libraries have.
lint-go: $(BUF) $(GOOGLEAPIS) ## Check the Go client: gofmt, vet and staticcheck, and vet with the oldest Go that it supports (needs Go)
	@cd clients/go && go generate .
	@cd clients/go && unformatted=$$(gofmt -l .) && test -z "$$unformatted" || { echo "not as gofmt has it: $$unformatted"; exit 1; }
	@cd clients/go && go vet ./...
	@cd clients/go && go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	@cd clients/go && GOTOOLCHAIN=go$$(sed -n 's/^go //p' go.mod) go vet ./...

.PHONY: lint-node
# Rules that go by types need the generated stubs.
lint-node: $(NODE_CLIENT) ## Check the Node client: prettier, and typescript-eslint's strict rules (needs Node)
	@npm run --prefix clients/node --silent lint

.PHONY: release release-check
RELEASE := build/release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

# The Python package is built from a copy without anything that was generated, the wheel from the sdist.
release: setup $(BUF) $(GOOGLEAPIS) $(NODE_CLIENT) ## Build what is released, for all languages, into build/release (needs Go, Java, Maven and Node)
	@rm -rf $(RELEASE) build/sources
	@mkdir -p $(RELEASE) build/sources
	@git ls-files -z | tar -c --null -T - | tar -x -C build/sources
	@$(BIN)/python -m build --outdir $(RELEASE) build/sources >build/release.log 2>&1 || { cat build/release.log; exit 1; }
	@rm -rf build/sources
	@cd clients/node && npm pack --silent --pack-destination ../../$(RELEASE) >../../build/release.log
	@cd clients/go && go generate .
	@$(BIN)/python tools/go_module.py $(RELEASE)/goproxy >build/release.log
	@cd clients/java && mvn --batch-mode --quiet --activate-profiles release clean package -Dmaven.test.skip
	@cp clients/java/target/userprofile-client-$(VERSION).jar clients/java/target/userprofile-client-$(VERSION)-*.jar $(RELEASE)
	@cp clients/java/pom.xml $(RELEASE)/userprofile-client-$(VERSION).pom
	@cd $(RELEASE) && find * -type f | LC_ALL=C sort | xargs sha256sum >SHA256SUMS && cat SHA256SUMS

release-check: release ## Try it: install each into an empty project, and run the first example of its README
	@$(BIN)/python -m pytest tests/external/check_package.py tests/external/check_go_module.py \
	    tests/external/check_node_package.py tests/external/check_java_project.py

go-module: $(BUF) $(GOOGLEAPIS) ## Write the Go client as a module proxy serves it into build/goproxy (needs Go)
	@cd clients/go && go generate .
	@$(BIN)/python tools/go_module.py build/goproxy

.PHONY: test-conformance
test-conformance: setup $(BUF) $(GOOGLEAPIS) $(NODE_CLIENT) ## Judge the clients of all languages by the same cases (needs Go, Java, Maven, Node and Rust)
	@$(BIN)/python -m pytest tests/external/check_conformance.py -n 6 --dist loadgroup

.PHONY: test-floods
test-floods: setup ## Attack a server in all ways, for a minute and a half, and print what others notice
	@$(BIN)/python -m pytest tests/external/check_floods.py -p no:xdist

.PHONY: test-load
test-load: setup-bench $(LOAD) ## Make up to five times the calls that a server can serve, SECONDS=4 each, and print what becomes of them (needs Go)
	@SECONDS=$(or $(SECONDS),4) $(BIN)/python -m pytest tests/external/check_load.py -p no:xdist

test-client-load: setup ## Try the Python clients under load and losing servers, for minutes
	@$(BIN)/python -m pytest tests/external/check_client_load.py

.PHONY: test-processes
test-processes: setup $(LOAD) ## End, kill and replace one of several server processes under load, TIMES=20 times each (needs Go)
	@TIMES=$(or $(TIMES),20) $(BIN)/python -m pytest tests/external/check_processes.py -k "not nginx"

test-sqlite-processes: setup ## Import, check and back up a SQLite file while a server reads it; SECONDS=300: for so long
	@SECONDS=$(or $(SECONDS),20) $(BIN)/python -m pytest tests/external/check_sqlite_processes.py -p no:xdist

test-nginx: setup $(LOAD) $(NODE_CLIENT) ## Try all clients through nginx, TIMES=20 ends of a process behind it (needs Go, Java, Maven, Node, and nginx, or root and apt to install it)
	@test -x /usr/sbin/nginx && test -e /usr/lib/nginx/modules/ngx_stream_module.so || { \
	    command -v apt-get >/dev/null && test "$$(id -u)" = 0 || { echo 'nginx is needed: apt-get install nginx-light libnginx-mod-stream, as root, or the like'; exit 2; }; \
	    echo 'installing nginx'; apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light libnginx-mod-stream >/dev/null; }
	@$(BIN)/python -m pytest tests/external/check_nginx.py
	@TIMES=$(or $(TIMES),20) $(BIN)/python -m pytest tests/external/check_processes.py -k nginx

.PHONY: test-prometheus
test-prometheus: setup ## Check the alerts, and let a real Prometheus scrape two processes while faults are injected (needs Prometheus, or root and apt to install it)
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { \
	    command -v apt-get >/dev/null && test "$$(id -u)" = 0 || { echo 'Prometheus is needed: apt-get install prometheus, as root, or the like'; exit 2; }; \
	    echo 'installing Prometheus'; apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null; }
	@$(BIN)/python -m pytest tests/external/check_prometheus.py -p no:xdist

.PHONY: test-rotation
test-rotation: setup ## Replace certificates, authorities, tokens, policy and keys under load, TIMES=10 times each
	@TIMES=$(or $(TIMES),10) CALLERS=16 $(BIN)/python -m pytest tests/external/check_rotation.py tests/clients/test_rotation.py -n 2

test-gocb: setup ## Try the test node with Couchbase's Go SDK (needs Go)
	@$(BIN)/python -m pytest tests/external/check_gocb.py

$(COUCHBASEMOCK):
	@mvn --quiet --batch-mode dependency:copy -Dartifact=com.couchbase.mock:CouchbaseMock:1.5.27 -DoutputDirectory="$$PWD/$(@D)"

test-setup: setup ## Try setting up in odd folders, after it was stopped, moved, or lost something
	@$(BIN)/python -m pytest tests/external/check_setup.py -n 2

KUBERNETES_VALIDATE := build/kubernetes-validate
DEPLOY_TOOLS := podman runc mmdebstrap

.PHONY: test-deploy
test-deploy: setup $(KUSTOMIZE) $(COMPOSE) $(KUBERNETES_VALIDATE) ## Build the image and run it, the manifests' pods and the systemd unit, and validate all of deploy/ (needs Go, root, and apt or what it installs)
	@test "$$(id -u)" = 0 || { echo 'root is needed, for containers'; exit 2; }
	@which $(DEPLOY_TOOLS) >/dev/null || { \
	    command -v apt-get >/dev/null || { echo '$(DEPLOY_TOOLS) are needed'; exit 2; }; \
	    echo 'installing $(DEPLOY_TOOLS)'; apt-get update -qq && apt-get install -y -qq --no-install-recommends $(DEPLOY_TOOLS) >/dev/null; }
	@$(BIN)/python -m pytest tests/external/check_deploy.py -p no:xdist --durations 8
	@sed -n '/^## Not run/,$$p' docs/deployment.md

$(KUBERNETES_VALIDATE): tests/external/deploy/requirements.txt
	@$(PYTHON) -m venv --clear $@
	@$@/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(KUSTOMIZE):
	@GOBIN="$$PWD/$(@D)" go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1

$(COMPOSE):
	@GOBIN="$$PWD/$(@D)" go install github.com/compose-spec/compose-go/v2/cmd@v2.16.2
	@mv $(@D)/cmd $@

$(GRPCURL):
	@GOBIN="$$PWD/$(@D)" go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3

bench: setup-bench $(BENCH) ## Measure the service beside its alternatives, and how it grows, for half an hour (needs Go)
	@$(BIN)/python -m bench contenders
	@$(BIN)/python -m bench batches
	@$(BIN)/python -m bench grow

bench-quick: setup-bench $(BENCH) ## Four servers alone, in a minute
	@$(BIN)/python -m bench contenders --quick --rounds 7 --seconds 0.7

bench-compare: setup-bench $(BENCH) ## Measure what the working tree costs against the commit BASE (main unless given)
	@git worktree prune
	@git worktree list | grep -q /build/base || git worktree add --quiet --detach build/base
	@git -C build/base checkout --quiet --detach $(BASE)
	@$(MAKE) --no-print-directory -C build/base setup
	@$(BIN)/python -m bench compare build/base

$(LOAD): $(GOOGLEAPIS) $(BUF) $(wildcard bench/go/* bench/go/load/*) | setup-serve
	@cd clients/go && go generate .
	@cd bench/go && go build -o "$$OLDPWD/$@" ./load
	@touch $@

$(BENCH): $(LOAD) $(wildcard bench/go/* bench/go/server/*) | setup-bench
	@GOBIN="$$PWD/.tools/bin" go install github.com/bojand/ghz/cmd/ghz@v0.121.0
	@GOBIN="$$PWD/.tools/bin" go install github.com/tsenart/vegeta/v12@v12.13.0
	@cd bench/go && go build -o "$$OLDPWD/$@" ./server
	@touch $@

lint-protos: $(BUF) $(GOOGLEAPIS) $(PROTOSET) ## Lint the contract, and see that docs/api.md says what it says (needs Node)
	@$(BUF) lint
	@$(BIN)/python docs/update_api.py --check

.PHONY: breaking test-breaking
# The commit to compare with, if not that of the last release (protos/RELEASED).
AGAINST ?=

breaking: $(BUF) $(GOOGLEAPIS) ## Compare the contract with the last release's: does it break anybody? (needs Node)
	@.ci/breaking $(AGAINST)

test-breaking: setup $(BUF) $(GOOGLEAPIS) ## Try that comparison on changes of all kinds
	@BUF="$$PWD/$(BUF)" $(BIN)/python -m pytest tests/external/check_breaking.py

.PHONY: protoset proto-docs
protoset: $(PROTOSET) ## Write build/userprofile.protoset, for grpcurl without reflection (needs Node)
	@echo $(PROTOSET)

proto-docs: $(PROTOSET) ## Write docs/api.md anew from the protos' comments (needs Node)
	@$(BIN)/python docs/update_api.py

# buf keeps the protos' comments, which a server's reflection doesn't have. The health protocol is installed without
# its proto, so its descriptor is appended: sets of descriptors that stand in one file one after the other are one set.
$(PROTOSET): $(BUF) $(GOOGLEAPIS) buf.yaml docs/health_descriptor.py $(shell find protos -name '*.proto')
	@$(BUF) build --as-file-descriptor-set --output $@.part#format=binpb
	@$(BIN)/python docs/health_descriptor.py >> $@.part
	@mv $@.part $@

.PHONY: googleapis
googleapis: $(GOOGLEAPIS) ## Put others' protos that ours import into build/googleapis, for protoc
	@echo build/googleapis

$(GOOGLEAPIS): constraints.txt | setup-serve
	@rm -rf $@
	@mkdir -p $@
	@cp $$($(BIN)/python -c 'import google.rpc; print(*google.rpc.__path__)')/*.proto $@
	@touch $@

$(BUF): tools/package-lock.json
	@npm ci --prefix tools --silent --no-audit --no-fund
	@touch $@

# All of the client's TypeScript: the package in dist, and tests, examples and adapter in build.
$(NODE_CLIENT): clients/node/node_modules/.package-lock.json $(GOOGLEAPIS) $(wildcard protos/userprofile/v1/* clients/node/*.json \
    clients/node/buf.gen.yaml $(foreach folder,src test examples conformance,clients/node/$(folder)/*.ts))
	@npm run --prefix clients/node --silent build
	@touch $@

clients/node/node_modules/.package-lock.json: clients/node/package-lock.json
	@npm ci --prefix clients/node --no-audit --no-fund --loglevel error
	@touch $@

lint: setup ## Check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@! LC_ALL=C.UTF-8 grep -rnE --include='*.java' '^.{101}' clients/java/src clients/java/examples || { echo 'Java: lines of up to 100 characters'; exit 1; }

format: setup ## Bring the code into its style
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

types: setup ## Check the types of everything, tests and benchmarks too
	@$(BIN)/mypy

docs: setup ## Write the tables of the README and of docs/, the dashboard and each client's version anew, from the code and from what was measured
	@$(BIN)/python tools/versions.py
	@$(BIN)/python docs/update_readme.py
	@$(BIN)/python docs/capacity.py
	@$(BIN)/python deploy/prometheus/update_dashboard.py

lock: ## Choose all versions anew: the newest that pyproject.toml allows
	@$(PYTHON) -m venv --clear build/lock
	@build/lock/bin/python -m pip install --quiet --disable-pip-version-check '.[dev,bench]'
	@build/lock/bin/python -m pip freeze --exclude userprofile > constraints.txt

clean: ## Remove everything that was made here
	@rm -rf $(VENV) .tools tools/node_modules clients/go/gen clients/node/node_modules clients/node/dist clients/node/build clients/node/LICENSE clients/node/src/gen clients/java/target build dist .mypy_cache .pytest_cache .ruff_cache client/userprofile/v1/*_pb2* client/userprofile/v1/*.json
	@find . -name __pycache__ -prune -exec rm -rf {} +
