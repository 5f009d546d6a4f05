package torctl_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/torctl"
)

func TestChecks(t *testing.T) {
	for s, want := range map[string]bool{fp: true, strings.ToLower(fp): true, "$" + fp: false, fp[1:]: false, fp[1:] + "g": false, fp[1:] + "\n": false} {
		if got := torctl.CheckFingerprint(s) == nil; got != want {
			t.Errorf("fingerprint %q: %v", s, got)
		}
	}
	for s, want := range map[string]bool{"de": true, "DE": true, "d": false, "deu": false, "d1": false, "??": false, "{}": false, "": false} {
		if got := torctl.CheckCountry(s) == nil; got != want {
			t.Errorf("country %q: %v", s, got)
		}
	}
}

func TestParseBridge(t *testing.T) {
	b, err := torctl.ParseBridge("Bridge obfs4 [2001:db8::1]:443 " + strings.ToLower(fp) + " iat-mode=0 cert=a+b/c==")
	want := torctl.Bridge{Transport: "obfs4", Addr: "[2001:db8::1]:443", Fingerprint: fp, Args: map[string]string{"cert": "a+b/c==", "iat-mode": "0"}}
	if d := cmp.Diff(want, b); err != nil || d != "" {
		t.Error(err, d)
	}
	for _, bad := range []string{"", "Bridge", "obfs4", "host.example:443", "obfs4 1.2.3.4", "1.2.3.4:0", "1.2.3.4:443 k=v", "obfs4 1.2.3.4:1 k=v k=w",
		"obfs4 1.2.3.4:1 k=\"v\"", "obfs4 1.2.3.4:1 k=v#", "obfs4 1.2.3.4:1\nSocksPort 1", "obfs4 1.2.3.4:1 k=v\\", "4obfs 1.2.3.4:1", "[fe80::1%25eth0]:1", "obfs4 1.2.3.4:1 é=v"} {
		if b, err := torctl.ParseBridge(bad); err == nil {
			t.Errorf("%q: %+v", bad, b)
		}
	}
}

func FuzzBridge(f *testing.F) {
	f.Add("Bridge obfs4 1.2.3.4:443 " + fp + " cert=x iat-mode=0")
	f.Add("bridge bridge [::1]:1")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := torctl.ParseBridge(s)
		if err != nil {
			return
		}
		again, err := torctl.ParseBridge(b.String())
		if d := cmp.Diff(b, again); err != nil || d != "" || strings.ContainsAny(b.String(), "\r\n#\"\\") {
			t.Errorf("%q: %v %s", b, err, d)
		}
	})
}

// FuzzReply answers every command with the same bytes and hangs up.
func FuzzReply(f *testing.F) {
	for _, r := range replies {
		f.Add(r)
	}
	f.Add("250-ns/all=r a b c d e f g h\r\n250 OK\r\n")
	f.Add("250-entry-guards=$A up\r\n250 OK\r\n")
	f.Add("250-address-mappings/all=a b \"2026-01-02 03:04:05\"\r\n250 OK\r\n")
	f.Add("250-Log=\"a\\\"\r\n250 Log\r\n")
	f.Add("650 x\r\n250 EXTENDED \r\n")
	f.Fuzz(func(t *testing.T, reply string) {
		for i := range 9 {
			c := dial(t, newFake(t, false, func(string) string { return reply + "\r\nhangup" }))
			ctx := soon(t)
			switch i {
			case 0:
				c.Relays(ctx)
			case 1:
				c.Circuits(ctx)
			case 2:
				c.Bootstrap(ctx)
			case 3:
				c.ExtendCircuit(ctx, nil)
			case 4:
				c.Events(ctx, "STREAM")
			case 5:
				c.EntryGuards(ctx)
			case 6:
				c.AddressMappings(ctx)
			case 7:
				c.GetConf(ctx, "Log")
			case 8:
				c.Address(ctx)
			}
			c.Close()
		}
	})
}
