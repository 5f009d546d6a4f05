# vpnd: what people type. Everything needs Linux; demo, test and bench need root,
# because they make network namespaces. Nothing of the host's network is touched.

GO      ?= go
BIN     := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X vpnd/pkg/build.version=$(VERSION)
# What Debian calls the things that a bare machine lacks. go-sqlite3 needs a C compiler.
# tor-gencert is for the private Tor network of the tests.
DEBS    := gcc libc6-dev tor curl bind9-dnsutils iproute2 nftables

.PHONY: all build demo test bench lint fuzz generate install clean deps

all: build

deps:
	@command -v $(GO) >/dev/null || { echo "vpnd needs Go 1.26 or newer: https://go.dev/dl/"; exit 1; }
	@missing=; [ -e /usr/include/stdlib.h ] || missing=1; \
	for p in gcc tor curl dig ip nft; do PATH=$$PATH:/usr/sbin:/sbin command -v $$p >/dev/null || missing=1; done; \
	if [ -n "$$missing" ]; then \
		echo "installing with apt: $(DEBS)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(DEBS); \
	fi

build: deps ## bin/vpnd, bin/vpnctl, bin/vpn
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/vpnd ./cmd/vpnctl ./client/cmd/vpn

demo: build ## a whole VPN in namespaces, one scene after the other (KEEP=1 leaves it up)
	@PATH=$$PATH:/usr/sbin $(BIN)/vpnctl lab demo $(if $(KEEP),--keep)

# One package at a time: some tests measure outages, and two cores are few. Never from
# the cache: the end-to-end tests build programs that the cache does not know they use.
test: deps lint ## unit, race, contract, golden, namespace and end-to-end tests
	$(GO) test -race -count 1 -p 1 -timeout 40m ./...

lint: deps
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

bench: build ## the table of docs/performance.md, each figure beside its floor
	@$(GO) run ./pkg/e2e/bench -bin $(BIN)

fuzz: deps ## every fuzzer for FUZZTIME (default 10s)
	@for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -h '^func Fuzz' $$p/*_test.go | sed 's/func \(Fuzz[A-Za-z0-9_]*\).*/\1/'); do \
			echo "$$p $$f"; $(GO) test $$p -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(FUZZTIME),10s) || exit 1; \
		done; \
	done

generate: build ## what is committed but made by the programs
	$(BIN)/vpnctl completion bash > completions/vpnctl.bash
	$(BIN)/vpnctl completion zsh > completions/_vpnctl
	$(BIN)/vpnctl completion fish > completions/vpnctl.fish
	@mkdir -p man
	$(BIN)/vpnctl man vpnctl-logs > man/vpnctl-logs.1

install: build ## into DESTDIR/usr
	install -Dm755 $(BIN)/vpnd $(DESTDIR)/usr/sbin/vpnd
	install -Dm755 $(BIN)/vpnctl $(DESTDIR)/usr/bin/vpnctl
	install -Dm755 $(BIN)/vpn $(DESTDIR)/usr/bin/vpn
	install -Dm644 completions/vpnctl.bash $(DESTDIR)/usr/share/bash-completion/completions/vpnctl
	install -Dm644 completions/_vpnctl $(DESTDIR)/usr/share/zsh/site-functions/_vpnctl
	install -Dm644 completions/vpnctl.fish $(DESTDIR)/usr/share/fish/vendor_completions.d/vpnctl.fish
	install -Dm644 man/vpnctl-logs.1 $(DESTDIR)/usr/share/man/man1/vpnctl-logs.1
	install -Dm644 deploy/vpnd.service $(DESTDIR)/lib/systemd/system/vpnd.service

clean:
	rm -rf $(BIN)
