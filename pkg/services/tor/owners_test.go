package tor

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

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

func TestAnOwnerIsBelievedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := "alice"
		o := &owners{ask: func(context.Context, netip.Addr) (*sessions.Owner, error) { return &sessions.Owner{Username: now}, nil }}
		a := netip.MustParseAddr("10.9.0.2")
		for _, c := range []struct {
			after time.Duration
			want  string
		}{{0, "alice"}, {ownerFor - 1, "alice"}, {1, "bob"}} {
			time.Sleep(c.after)
			if owner, err := o.of(t.Context(), a); err != nil || owner.Username != c.want {
				t.Errorf("after %s more: %v, %v", c.after, owner, err)
			}
			now = "bob" // the address went to somebody else
		}
	})
}

func TestOwnersAreBoundedInNumber(t *testing.T) {
	o := &owners{ask: func(context.Context, netip.Addr) (*sessions.Owner, error) { return &sessions.Owner{}, nil }}
	a := netip.MustParseAddr("10.0.0.0")
	for range 2*ownersMax + 1 {
		if _, err := o.of(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if a = a.Next(); len(o.known) > ownersMax {
			t.Fatalf("%d are kept", len(o.known))
		}
	}
}

func TestASessionsThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &owners{ask: func(ctx context.Context, _ netip.Addr) (*sessions.Owner, error) { <-ctx.Done(); return nil, ctx.Err() }}
		if _, err := o.of(t.Context(), netip.MustParseAddr("10.9.0.2")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestADeviceWithoutIPv4HasNoLoopback(t *testing.T) {
	v6 := netip.MustParseAddr("fd00::9:102")
	o := &owners{ask: func(context.Context, netip.Addr) (*sessions.Owner, error) {
		return &sessions.Owner{Addresses: []netip.Addr{v6}}, nil
	}}
	if a, err := o.loopback(t.Context(), v6); err == nil {
		t.Errorf("it shares %s with the device of that IPv4 address", a)
	}
}
