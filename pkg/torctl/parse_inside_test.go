package torctl

import (
	"strings"
	"testing"
)

func FuzzMicrodescs(f *testing.F) {
	f.Add("onion-key\n-----BEGIN RSA PUBLIC KEY-----\nAA==\n-----END RSA PUBLIC KEY-----\nntor-onion-key x\na [::1]:1\nfamily $A b\nfamily-ids ed25519:x\np accept 1-2,3\np6 reject 25\nid ed25519 x\nonion-key\np accept 80")
	f.Add("onion-key\r\nonion-key\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		var m microdescs
		for line := range strings.SplitSeq(s, "\n") {
			m.line([]byte(line))
		}
		all, ok := m.end()
		if ok != strings.HasPrefix(s+"\n", "onion-key\n") || len(all) > strings.Count(s, "onion-key") {
			t.Errorf("%d of %q", len(all), s)
		}
		for _, d := range all {
			if d.addr6.IsValid() && !d.addr6.Is6() || len(d.family) > maxFamily {
				t.Errorf("%+v", d)
			}
		}
	})
}

func FuzzLists(f *testing.F) {
	f.Add("r nick ASNFZ4mrze8BI0VniavN7wEjRWc ASNFZ4mrze8BI0VniavN7wEjRWc 2038-01-01 00:00:00 192.0.2.1 9001 0\na [2001:db8::1]:9001\ns Exit Fast\nw Bandwidth=77 Unmeasured=1")
	f.Add("$0123456789ABCDEF0123456789ABCDEF01234567~n down 2026-01-02 03:04:05")
	f.Add("10.192.0.1 x.onion NEVER\na \"b c\" \"2026-01-02 03:04:05\"")
	f.Fuzz(func(t *testing.T, s string) {
		lines := strings.Split(s, "\n")
		relays, digests, ok := parseRelays(lines)
		if ok && len(relays) != len(digests) {
			t.Errorf("%d relays, %d digests", len(relays), len(digests))
		}
		for _, r := range relays {
			if ok && (CheckFingerprint(r.Fingerprint) != nil || !r.Addr.IsValid()) {
				t.Errorf("%+v", r)
			}
		}
		guards, ok := parseGuards(lines)
		for _, g := range guards {
			if !ok || CheckFingerprint(g.Fingerprint) != nil {
				t.Errorf("%+v", g)
			}
		}
		for _, m := range first(parseMappings(lines)) {
			if m.From == "" && !strings.Contains(s, `"`) {
				t.Errorf("%+v", m)
			}
		}
	})
}

func first[T any](v T, _ bool) T { return v }
