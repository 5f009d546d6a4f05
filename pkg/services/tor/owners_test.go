package tor

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

func TestDNSOverTCPComesFromAnAddressOfTheDevicesOwn(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.9.1.2"), netip.MustParseAddr("fd00::1:2")
	o := &owners{lane: netip.MustParsePrefix("10.9.0.0/16"), ask: func(_ context.Context, a netip.Addr) (*sessions.Owner, error) {
		if a != v6 {
			return nil, fault.New(fault.NotFound, "nobody has %s", a)
		}
		return &sessions.Owner{Addresses: []netip.Addr{v4, v6}}, nil
	}}
	for _, device := range []netip.Addr{v4, v6} {
		source, err := o.loopback(t.Context(), device)
		if err != nil || source.String() != "127.9.1.2" {
			t.Errorf("%s: %s, %v", device, source, err)
		}
		if back := o.device(source); back != v4 {
			t.Errorf("%s stands for %s", source, back)
		}
	}
	// fd00::9:102 has the same low 24 bits as 10.9.1.2 and must not share its source.
	if source, err := o.loopback(t.Context(), netip.MustParseAddr("fd00::9:102")); !errors.Is(err, fault.NotFound) {
		t.Errorf("the device of another user is %s, %v", source, err)
	}
	if a := o.device(v6); a != v6 {
		t.Errorf("%s became %s", v6, a)
	}
}

func TestAnOwnerIsAskedForOnce(t *testing.T) {
	asked := 0
	o := &owners{ask: func(context.Context, netip.Addr) (*sessions.Owner, error) {
		if asked++; asked == 1 {
			return nil, fault.New(fault.Unavailable, "sessions is away")
		}
		return &sessions.Owner{Username: "alice"}, nil
	}}
	a := netip.MustParseAddr("10.9.0.2")
	if _, err := o.of(t.Context(), a); !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	for range 3 {
		if owner, err := o.of(t.Context(), a); err != nil || owner.Username != "alice" {
			t.Errorf("got %v, %v", owner, err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times: a failure is not remembered, an answer is", asked)
	}
}
