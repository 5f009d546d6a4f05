//go:build linux

package nft

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

func fuzzConfig() Config {
	return Config{
		VPN: Lane{"wg0", netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd01::/64"),
			netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd01::1"),
			netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd01::9")},
		Tor: Lane{"wg1", netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd02::/64"),
			netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd02::1"),
			netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("fd02::9")},
		ControlPort: 1, TransPort: 2, DNSPort: 3, PagePort: 4,
	}.withDefaults()
}

// encode is what the library would send for a rule.
func encode(t testing.TB, rule exprs) []byte {
	t.Helper()
	var elems []netlink.Attribute
	for _, e := range rule {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			t.Fatal(err)
		}
		elems = append(elems, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b})
	}
	b, err := netlink.MarshalAttributes(elems)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whoever may change rules may write anything into them: nothing crashes, and
// what does not parse is never taken for ours.
func FuzzKernelRule(f *testing.F) {
	want := allRules()
	for _, r := range want {
		f.Add(encode(f, r.exprs), userdata.AppendString(nil, userdata.TypeComment, r.comment))
	}
	f.Add([]byte{1, 0}, []byte{0, 200, 1})
	f.Fuzz(func(t *testing.T, rule, data []byte) {
		_ = comment(data)
		_, parseErr := splitExpressions(rule)
		for _, w := range want {
			if same, err := sameRule(w.exprs, rule); same && (err != nil || parseErr != nil) {
				t.Errorf("rule %q taken from a broken encoding", w.comment)
			}
		}
	})
}

// allRules gives the content of all chains of both tables.
func allRules() rules {
	var all rules
	for _, table := range fuzzConfig().tables() {
		chains := table.rules(State{VPN: VPNUp, Tor: TorUp})
		for _, spec := range table.chains {
			all = append(all, chains[spec.name]...)
		}
	}
	return all
}

func TestSameRuleTellsAllRulesApart(t *testing.T) {
	all := allRules()
	for _, a := range all {
		for _, b := range all {
			encoded := encode(t, b.exprs)
			got, err := sameRule(a.exprs, encoded)
			if err != nil {
				t.Fatal(err)
			}
			if want := bytes.Equal(encode(t, a.exprs), encoded); got != want {
				t.Errorf("%q and %q: same is %v, want %v", a.comment, b.comment, got, want)
			}
		}
	}
}

func TestEveryChainIsDescribedAndFilled(t *testing.T) {
	for _, table := range fuzzConfig().tables() {
		chains := table.rules(State{Tor: TorUp})
		for _, spec := range table.chains {
			if len(chains[spec.name]) == 0 {
				t.Errorf("chain %s has no rules", spec.name)
			}
			delete(chains, spec.name)
		}
		for name := range chains {
			t.Errorf("chain %s is nowhere described", name)
		}
	}
}

func TestNetmask(t *testing.T) {
	for _, zero := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		for bits := range zero.BitLen() + 1 {
			got, want := netmask(netip.PrefixFrom(zero, bits)), net.CIDRMask(bits, zero.BitLen())
			if !bytes.Equal(got, want) {
				t.Errorf("/%d: %x, want %x", bits, got, want)
			}
		}
	}
}
