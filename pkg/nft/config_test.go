//go:build linux

package nft_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/nft"
)

func TestValidateNamesEveryProblem(t *testing.T) {
	cfg := testConfig()
	cfg.Table = "no good"
	cfg.VPN.Interface = "a-name-of-16-bytes"
	cfg.VPN.Prefix4 = netip.MustParsePrefix("10.64.0.1/16")
	cfg.VPN.Gateway6 = netip.MustParseAddr("fd65::1")
	cfg.Tor.Interface = ""
	cfg.Tor.Prefix4 = netip.MustParsePrefix("fd99::/64")
	cfg.Tor.Prefix6 = netip.MustParsePrefix("fd64::/48")
	cfg.ControlPort = 0
	cfg.BlockedPorts = []uint16{25, 0}
	cfg.BlockedDestinations = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.0.0.1/8")}

	_, err := nft.New(cfg)
	if !errors.Is(err, fault.Invalid) {
		t.Fatalf("got %v, want %s", err, fault.Invalid)
	}
	var got []string
	for _, f := range fault.From(err).Fields {
		got = append(got, f.Path)
	}
	want := []string{
		"table", "vpn.interface", "vpn.prefix4", "vpn.gateway6", "tor.interface", "tor.prefix4", "tor.gateway6", "tor.canary",
		"tor.prefix6", "control_port", "blocked_ports", "blocked_destinations[1]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestUnknownStatesAreRefused(t *testing.T) {
	fw, err := nft.New(testConfig())
	must(t, err)
	for _, s := range []nft.State{{VPN: 2}, {Tor: nft.TorMaintenance}, {Tor: nft.TorUp}, {Tor: 3}} {
		if _, err := fw.Apply(t.Context(), s); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v, want %s", s, err, fault.Invalid)
		}
	}
}

func TestZeroStateIsTheSafeOne(t *testing.T) {
	if got, want := (nft.State{}).String(), "vpn down, tor blocked"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
