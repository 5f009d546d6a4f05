package torctl_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/torctl"
	"vpnd/pkg/torpath"
)

// network scripts a tor that knows relays. Each gets a router status and,
// where md is not empty, a microdescriptor with these lines.
type network struct {
	ns, md strings.Builder
	extra  map[string]string
	count  int
	asked  []string
}

func (n *network) add(flags, md string, more ...string) (fingerprint string) {
	n.count++
	id := sha256.Sum256(fmt.Append(nil, n.count))
	body := "onion-key\n-----BEGIN RSA PUBLIC KEY-----\n" + strings.Repeat(strings.Repeat("A", 64)+"\n", 3) + "-----END RSA PUBLIC KEY-----\n" +
		fmt.Sprintf("ntor-onion-key %x\n", id) + md
	sum := sha256.Sum256([]byte(body))
	b64 := base64.RawStdEncoding.EncodeToString
	fmt.Fprintf(&n.ns, "r n%d %s %s 2038-01-01 00:00:00 10.%d.%d.1 9001 0\n%s", n.count, b64(id[:20]), b64(sum[:20]), n.count>>8, n.count&255, strings.Join(more, ""))
	fmt.Fprintf(&n.ns, "s %s\nw Bandwidth=%d\n", flags, n.count)
	if md != "" {
		n.md.WriteString(body)
	}
	return strings.ToUpper(hex.EncodeToString(id[:20]))
}

func (n *network) answer(line string) string {
	n.asked = append(n.asked, line)
	data := func(key, text string) string {
		if text == "" {
			return "250-" + key + "=\r\n250 OK\r\n"
		}
		return "250+" + key + "=\r\n" + strings.ReplaceAll(text, "\n", "\r\n") + ".\r\n250 OK\r\n"
	}
	switch {
	case n.extra[line] != "":
		return n.extra[line]
	case line == "GETINFO ns/all":
		return data("ns/all", n.ns.String())
	case line == "GETINFO md/all":
		return data("md/all", n.md.String())
	case line == "GETINFO entry-guards":
		return data("entry-guards", "")
	case line == "GETCONF EnforceDistinctSubnets":
		return "250 EnforceDistinctSubnets=1\r\n"
	case strings.HasPrefix(line, "GETINFO ip-to-country/"):
		var b strings.Builder
		for i, key := range strings.Fields(line)[1:] {
			fmt.Fprintf(&b, "250-%s=%s\r\n", key, []string{"DE", "nl", "??"}[i%3])
		}
		return b.String() + "250 OK\r\n"
	}
	return "250 OK\r\n"
}

func TestRelaysGetWhatTheirMicrodescriptorsSay(t *testing.T) {
	n := &network{}
	other := n.add("Running", "")
	n.add("Exit Fast Running Valid", "p accept 80,443\np6 reject 1-79,81-65535\nfamily $"+other+" nick\nfamily-ids ed25519:abc\nid ed25519 x\n", "a [2001:db8::1]:9001\n", "a [2001:db8::2]:9001\n")
	n.add("Running", "a 192.0.2.9:1\na [2001:db8::3]:9001\np accept 99999\n")
	rs, err := dial(t, newFake(t, false, n.answer)).Relays(t.Context())
	if err != nil || len(rs) != 3 {
		t.Fatal(rs, err)
	}
	want := []torctl.Relay{
		{Fingerprint: other, Nickname: "n1", Addr: netip.MustParseAddr("10.0.1.1"), Flags: []string{"Running"}, Bandwidth: 1},
		{Fingerprint: rs[1].Fingerprint, Nickname: "n2", Addr: netip.MustParseAddr("10.0.2.1"), Addr6: netip.MustParseAddr("2001:db8::1"),
			Flags: []string{"Exit", "Fast", "Running", "Valid"}, Bandwidth: 2, Described: true,
			Ports:  torpath.PortPolicy{Open: []torpath.PortRange{{First: 80, Last: 80}, {First: 443, Last: 443}}},
			Ports6: torpath.PortPolicy{Open: []torpath.PortRange{{First: 80, Last: 80}}}, Family: []string{"$" + other, "nick", "ed25519:abc"}},
		{Fingerprint: rs[2].Fingerprint, Nickname: "n3", Addr: netip.MustParseAddr("10.0.3.1"), Addr6: netip.MustParseAddr("2001:db8::3"),
			Flags: []string{"Running"}, Bandwidth: 3, Described: true},
	}
	if d := cmp.Diff(want, rs, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestConsensusIsWhatTorCanUse(t *testing.T) {
	const good = "Exit Fast Running Valid"
	n := &network{extra: map[string]string{"GETINFO entry-guards": "250-entry-guards=$" + fp + "~bridge up\r\n250 OK\r\n"}}
	undescribed := n.add(good, "")
	exit := n.add(good, "p accept 80\n")
	exit6 := n.add(good, "p6 accept 80\n")
	unfit := []string{n.add(good, "id x\n"), n.add(good+" BadExit", "p accept 80\n"), n.add("Fast Running Valid", "p accept 80\n"), n.add("Exit Fast Valid", "p accept 80\n")}
	c, err := dial(t, newFake(t, false, n.answer)).Consensus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, found := c.Relay(undescribed); found {
		t.Error("a relay without a microdescriptor is there")
	}
	if r, _ := c.Relay(exit); !r.Exit || r.Exit6 || r.Country != "nl" {
		t.Errorf("%+v", r)
	}
	if r, _ := c.Relay(exit6); !r.Exit || !r.Exit6 || r.Country != "" {
		t.Errorf("%+v", r)
	}
	for _, u := range unfit {
		if r, found := c.Relay(u); !found || r.Exit {
			t.Errorf("%+v, %v", r, found)
		}
	}
	if r, found := c.Relay(fp); !found || r.Exit || r.Flags != nil {
		t.Errorf("bridge: %+v, %v", r, found)
	}
	if got := c.Usable(torpath.Exits{}); got != 2 {
		t.Errorf("%d usable", got)
	}
}

func TestConsensusWithoutGeoIP(t *testing.T) {
	n := &network{extra: map[string]string{"GETINFO ip-to-country/10.0.1.1": "551 GeoIP data not loaded\r\n"}}
	exit := n.add("Exit Fast Running Valid", "p accept 80\n")
	c, err := dial(t, newFake(t, false, n.answer)).Consensus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r, found := c.Relay(exit); !found || r.Country != "" {
		t.Errorf("%+v, %v", r, found)
	}
}

// The public network, in size: 8,000 relays with microdescriptors of 1.3 kB.
func TestAWholeConsensus(t *testing.T) {
	n := &network{}
	family := "family" + strings.Repeat(" $"+fp, 20) + "\n"
	for i := range 8000 {
		n.add("Exit Fast Guard HSDir Running Stable V2Dir Valid", fmt.Sprintf("%sp accept 20-23,43,53,79-81,88,110,143,%d\nid ed25519 %043d\n", family, 1000+i, i), "a [2001:db8::1]:9001\n")
	}
	c := dial(t, newFake(t, false, n.answer))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	cons, err := c.Consensus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	runtime.ReadMemStats(&after)
	t.Logf("ns/all %d kB, md/all %d kB: %v, %d MB allocated in all", n.ns.Len()>>10, n.md.Len()>>10, took, (after.TotalAlloc-before.TotalAlloc)>>20)
	if got := cons.Usable(torpath.Exits{Countries: []string{"de", "nl"}}); got < 5000 || len(cons.Relays()) != 8000 {
		t.Errorf("%d usable of %d", got, len(cons.Relays()))
	}
	lookups := 0
	for _, line := range n.asked {
		if strings.HasPrefix(line, "GETINFO ip-to-country/") {
			lookups++
		}
	}
	if lookups > 30 {
		t.Errorf("%d commands for the countries", lookups)
	}
}

func TestGetters(t *testing.T) {
	n := &network{extra: map[string]string{
		"GETINFO address":              "250-address=192.0.2.7\r\n250 OK\r\n",
		"GETINFO entry-guards":         "250+entry-guards=\r\n$" + fp + "~a down 2026-01-02 03:04:05\r\n$" + strings.ToLower(fp) + "=b up\r\n$" + fp + " never-connected\r\n.\r\n250 OK\r\n",
		"GETINFO address-mappings/all": "250+address-mappings/all=\r\n10.192.0.1 x.onion NEVER\r\na.test 1.2.3.4 \"2026-01-02 03:04:05\"\r\n.\r\n250 OK\r\n",
		"GETCONF Log":                  "250-Log=notice stdout\r\n250 Log=\"info file a b\"\r\n",
		"GETCONF ExitNodes":            "250 ExitNodes\r\n",
		"GETCONF Nickname":             "250 Log=x\r\n",
	}}
	c := dial(t, newFake(t, false, n.answer))
	ctx := t.Context()
	if a, err := c.Address(ctx); err != nil || a != netip.MustParseAddr("192.0.2.7") {
		t.Error(a, err)
	}
	if g, err := c.EntryGuards(ctx); err != nil || !slices.Equal(g, []torctl.Guard{{Fingerprint: fp, State: "up"}, {Fingerprint: fp, State: "never-connected"}, {Fingerprint: fp, State: "down"}}) {
		t.Error(g, err)
	}
	m, err := c.AddressMappings(ctx)
	if err != nil || !slices.Equal(m, []torctl.Mapping{{From: "10.192.0.1", To: "x.onion"}, {From: "a.test", To: "1.2.3.4", Expiry: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}) {
		t.Error(m, err)
	}
	if v, err := c.GetConf(ctx, "Log"); err != nil || !slices.Equal(v, []string{"notice stdout", "info file a b"}) {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := c.GetConf(ctx, "ExitNodes"); err != nil || v != nil {
		t.Errorf("%q, %v", v, err)
	}
	if _, err := c.GetConf(ctx, "a b"); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if _, err := c.CountryAll(ctx, []netip.Addr{{}}); !errors.Is(err, fault.Invalid) || c.Err() != nil {
		t.Error(err, c.Err())
	}
	if _, err := c.GetConf(ctx, "Nickname"); err == nil || c.Err() == nil {
		t.Error("another option's value was taken")
	}
}
