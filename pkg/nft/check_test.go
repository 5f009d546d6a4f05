//go:build linux

package nft_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
	"vpnd/pkg/lab/netns"
	"vpnd/pkg/nft"
)

// stranger changes the ruleset of the server like another program would, in one
// batch.
func stranger(t testing.TB, w *world, change func(*nftables.Conn, *nftables.Table)) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(w.server.Fd()))
	must(t, err)
	change(c, &nftables.Table{Name: nft.DefaultTable, Family: nftables.TableFamilyINet})
	must(t, c.Flush())
}

// ruleIn finds the nth rule of a chain, counted from 0.
func ruleIn(t testing.TB, c *nftables.Conn, table *nftables.Table, chain string, n int) *nftables.Rule {
	t.Helper()
	rules, err := c.GetRules(table, &nftables.Chain{Name: chain, Table: table})
	must(t, err)
	rules[n].Table, rules[n].Chain = table, &nftables.Chain{Name: chain, Table: table}
	return rules[n]
}

// ruleWith finds the first rule of a chain that has a comment.
func ruleWith(t testing.TB, c *nftables.Conn, table *nftables.Table, chain, comment string) *nftables.Rule {
	t.Helper()
	rules, err := c.GetRules(table, &nftables.Chain{Name: chain, Table: table})
	must(t, err)
	for i, r := range rules {
		if strings.Contains(string(r.UserData), comment) {
			return ruleIn(t, c, table, chain, i)
		}
	}
	t.Fatalf("no rule %q in %s", comment, chain)
	return nil
}

func ifnameIs(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded}}
}

func check(t testing.TB, w *world) nft.Drift {
	t.Helper()
	d, err := w.fw.Check(context.Background())
	must(t, err)
	return d
}

func TestCheckFindsWhatAStrangerDidAndApplyRepairsIt(t *testing.T) {
	type change = func(*testing.T, *nftables.Conn, *nftables.Table)
	for _, c := range []struct {
		name   string
		change change
		want   string // in the drift
	}{
		{"whole ruleset flushed", func(_ *testing.T, c *nftables.Conn, _ *nftables.Table) {
			c.FlushRuleset()
		}, "table inet vpnd is missing"},
		{"table deleted", func(_ *testing.T, c *nftables.Conn, tab *nftables.Table) {
			c.DelTable(tab)
		}, "table inet vpnd is missing"},
		{"table emptied", func(_ *testing.T, c *nftables.Conn, tab *nftables.Table) {
			c.FlushTable(tab)
		}, "chain c_input: all rules are missing"},
		{"chain flushed", func(_ *testing.T, c *nftables.Conn, tab *nftables.Table) {
			c.FlushChain(&nftables.Chain{Name: "c_forward", Table: tab})
		}, "chain c_forward: all rules are missing"},
		{"chain deleted", func(_ *testing.T, c *nftables.Conn, tab *nftables.Table) {
			chain := &nftables.Chain{Name: "c_srcnat", Table: tab}
			c.FlushChain(chain)
			c.DelChain(chain)
		}, "chain c_srcnat is missing"},
		{"first rule deleted", func(t *testing.T, c *nftables.Conn, tab *nftables.Table) {
			must(t, c.DelRule(ruleIn(t, c, tab, "c_forward", 0)))
		}, "chain c_forward: rule 1 (not our lanes) is missing"},
		{"rule in the middle deleted", func(t *testing.T, c *nftables.Conn, tab *nftables.Table) {
			must(t, c.DelRule(ruleWith(t, c, tab, "c_forward", "blocked port")))
		}, "(blocked port) is missing"},
		{"last rule deleted", func(t *testing.T, c *nftables.Conn, tab *nftables.Table) {
			must(t, c.DelRule(ruleWith(t, c, tab, "c_forward", "everything else")))
		}, "(everything else) is missing"},
		{"rule inserted", func(_ *testing.T, c *nftables.Conn, tab *nftables.Table) {
			c.InsertRule(&nftables.Rule{
				Table: tab, Chain: &nftables.Chain{Name: "c_forward", Table: tab},
				Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}},
			})
		}, "chain c_forward: rule 1 is not ours"},
		{"rule appended", func(_ *testing.T, c *nftables.Conn, tab *nftables.Table) {
			c.AddRule(&nftables.Rule{
				Table: tab, Chain: &nftables.Chain{Name: "c_egress", Table: tab},
				Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}},
			})
		}, "chain c_egress: rule 5 is not ours"},
		{"verdict changed", func(t *testing.T, c *nftables.Conn, tab *nftables.Table) {
			r := ruleWith(t, c, tab, "c_forward", "everything else")
			r.Exprs[len(r.Exprs)-1] = &expr.Verdict{Kind: expr.VerdictAccept}
			c.ReplaceRule(r)
		}, "(everything else) was changed"},
		{"match changed", func(t *testing.T, c *nftables.Conn, tab *nftables.Table) {
			r := ruleWith(t, c, tab, "c_forward", "lane tor (tcp)")
			r.Exprs[1].(*expr.Cmp).Data[2] = '9'
			c.ReplaceRule(r)
		}, "(lane tor (tcp)) was changed"},
		{"expression changed that the library cannot read", func(t *testing.T, c *nftables.Conn, tab *nftables.Table) {
			r := ruleWith(t, c, tab, "c_forward", "segment size out")
			n := len(r.Exprs)
			r.Exprs = append(r.Exprs[:n-1:n-1],
				&expr.Rt{Key: expr.RtClassid, Register: 1},
				&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 2, Size: 2},
				r.Exprs[n-1])
			c.ReplaceRule(r)
		}, "(segment size out) was changed"},
		{"policy changed", func(_ *testing.T, c *nftables.Conn, tab *nftables.Table) {
			accept := nftables.ChainPolicyAccept
			c.AddChain(&nftables.Chain{
				Name: "c_forward", Table: tab, Type: nftables.ChainTypeFilter, Policy: &accept,
				Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
			})
		}, "chain c_forward has another policy"},
		{"chain moved to another hook", func(_ *testing.T, c *nftables.Conn, tab *nftables.Table) {
			chain := &nftables.Chain{Name: "c_forward", Table: tab}
			c.FlushChain(chain)
			c.DelChain(chain)
			c.AddChain(&nftables.Chain{
				Name: "c_forward", Table: tab, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPrioritySecurity,
			})
		}, "chain c_forward is at another hook"},
		{"chain added", func(_ *testing.T, c *nftables.Conn, tab *nftables.Table) {
			c.AddChain(&nftables.Chain{
				Name: "theirs", Table: tab, Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
			})
		}, "chain theirs is not ours"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, testConfig())
			apply(t, w, up)
			if d := check(t, w); !d.OK() {
				t.Fatalf("right after Apply: %s", d)
			}
			stranger(t, w, func(conn *nftables.Conn, tab *nftables.Table) { c.change(t, conn, tab) })
			if d := check(t, w); !strings.Contains(d.String(), c.want) {
				t.Errorf("drift %q, want it to say %q", d, c.want)
			}
			apply(t, w, up)
			fresh(t, w, up)
		})
	}
}

// fresh reads the whole table, also where Check would trust the generation.
func fresh(t *testing.T, w *world, s nft.State) {
	t.Helper()
	touch(t, w)
	if d := check(t, w); !d.OK() {
		t.Errorf("after repair (%s): %s", s, d)
	}
}

// touch makes a change elsewhere, so that the ruleset has a new generation.
func touch(t testing.TB, w *world) {
	t.Helper()
	stranger(t, w, func(c *nftables.Conn, _ *nftables.Table) {
		other := c.AddTable(&nftables.Table{Name: "elsewhere", Family: nftables.TableFamilyIPv4})
		c.DelTable(other)
	})
}

func TestCheckFindsADormantTable(t *testing.T) {
	w := newWorld(t, testConfig())
	apply(t, w, up)
	batch(t, w, unix.NFT_MSG_NEWTABLE, []netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte("vpnd\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: []byte{0, 0, 0, 1}},
	})
	if d := check(t, w); !strings.Contains(d.String(), "dormant") {
		t.Errorf("drift %q", d)
	}
	apply(t, w, up)
	fresh(t, w, up)
}

// batch sends one message for which the library has no call.
func batch(t *testing.T, w *world, kind netlink.HeaderType, attrs []netlink.Attribute) {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: w.server.Fd()})
	must(t, err)
	defer func() { _ = c.Close() }()
	data, err := netlink.MarshalAttributes(attrs)
	must(t, err)
	message := func(kind netlink.HeaderType, flags netlink.HeaderFlags, head, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | flags}, Data: append(head, data...)}
	}
	subsys := []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	_, err = c.SendMessages([]netlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, subsys, nil),
		message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, netlink.Acknowledge, []byte{unix.NFPROTO_INET, 0, 0, 0}, data),
		message(unix.NFNL_MSG_BATCH_END, 0, subsys, nil),
	})
	must(t, err)
	_, err = c.Receive()
	must(t, err)
}

func TestEveryStateChecksAgainstItself(t *testing.T) {
	for _, peers := range []bool{false, true} {
		cfg := testConfig()
		cfg.PeerToPeer = peers
		cfg.BlockedPorts = []uint16{465, 25, 587, 25}
		states := []nft.State{down, up, down}
		if peers {
			cfg.TransPort, cfg.DNSPort, cfg.PagePort = transPort, dnsPort, pagePort
			states = append(states, torUp, torMaintenance, up)
		}
		w := newWorld(t, cfg)
		for _, s := range states {
			apply(t, w, s)
			fresh(t, w, s)
		}
	}
}

func TestCheckBeforeApplyAndAfterRemove(t *testing.T) {
	w := newWorld(t, testConfig())
	if d := check(t, w); d.OK() {
		t.Error("nothing was applied, and Check is content")
	}
	must(t, w.fw.Remove(context.Background()))
	apply(t, w, down)
	must(t, w.fw.Remove(context.Background()))
	must(t, w.fw.Remove(context.Background()))
	if d := check(t, w); d.OK() {
		t.Error("the table was removed, and Check is content")
	}
	if left := dump(t, w, "vpnd"); len(left) != 0 {
		t.Errorf("left behind: %d objects", len(left))
	}
}

func TestCountersSurviveApply(t *testing.T) {
	w := newWorld(t, testConfig())
	if all, err := w.fw.Counters(context.Background()); err != nil || len(all) != 0 {
		t.Errorf("without a table: %v, %v", all, err)
	}
	apply(t, w, down)
	everywhere(t, w)
	wantRefused(t, w.clientT, "tcp", site4, 80)
	before, err := w.fw.Counters(context.Background())
	must(t, err)
	if len(before) != len(nft.Reasons()) || before[nft.TorRefused].Packets == 0 || before[nft.TorRefused].Bytes == 0 {
		t.Errorf("counters %v", before)
	}
	apply(t, w, up)
	after, err := w.fw.Counters(context.Background())
	must(t, err)
	if after[nft.TorRefused].Packets < before[nft.TorRefused].Packets {
		t.Errorf("Apply lost counts: %v, then %v", before, after)
	}
}

// dump gives everything of a table as the kernel encodes it, handles included.
func dump(t *testing.T, w *world, table string) []string {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: w.server.Fd()})
	must(t, err)
	defer func() { _ = c.Close() }()
	name := append([]byte{unix.NFPROTO_INET, 0, 0, 0}, attribute(unix.NFTA_RULE_TABLE, table)...)
	var all []string
	for _, kind := range []netlink.HeaderType{
		unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE, unix.NFT_MSG_GETSET, unix.NFT_MSG_GETOBJ,
	} {
		msgs, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, Flags: netlink.Request | netlink.Dump},
			Data:   name,
		})
		if errors.Is(err, unix.ENOENT) { // what some kinds say without the table
			continue
		}
		must(t, err)
		for _, m := range msgs {
			// The name of the table is the first attribute of all five. The header
			// before it carries the generation, which does change.
			if body := m.Data[4:]; strings.HasPrefix(string(body), string(attribute(unix.NFTA_RULE_TABLE, table))) {
				all = append(all, string(body))
			}
		}
	}
	return all
}

func attribute(kind uint16, text string) []byte {
	b, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: kind, Data: append([]byte(text), 0)}})
	if err != nil {
		panic(err)
	}
	return b
}

func TestOtherTablesStayAsTheyAre(t *testing.T) {
	w := newWorld(t, testConfig())
	stranger(t, w, func(c *nftables.Conn, _ *nftables.Table) {
		table := c.AddTable(&nftables.Table{Name: "theirs", Family: nftables.TableFamilyINet})
		c.AddObj(&nftables.NamedObj{Table: table, Name: "n", Type: nftables.ObjTypeCounter, Obj: &expr.Counter{Packets: 7}})
		set := &nftables.Set{Table: table, Name: "s", KeyType: nftables.TypeInetService}
		must(t, c.AddSet(set, []nftables.SetElement{{Key: []byte{0, 22}}}))
		chain := c.AddChain(&nftables.Chain{
			Name: "c_forward", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(
			ifnameIs(expr.MetaKeyIIFNAME, "lan0"), &expr.Verdict{Kind: expr.VerdictAccept})})
	})
	before := dump(t, w, "theirs")
	if len(before) != 5 {
		t.Fatalf("the other table has %d objects, want 5", len(before))
	}
	same := func(when string) {
		t.Helper()
		if diff := cmp.Diff(before, dump(t, w, "theirs")); diff != "" {
			t.Errorf("%s: the other table changed:\n%s", when, diff)
		}
	}
	for _, s := range []nft.State{down, up, up} {
		apply(t, w, s)
		same("after Apply " + s.String())
	}
	stranger(t, w, func(c *nftables.Conn, table *nftables.Table) {
		c.AddChain(&nftables.Chain{Name: "foreign", Table: table})
	})
	apply(t, w, up)
	same("after a repair")
	must(t, w.fw.Remove(context.Background()))
	same("after Remove")
}

func TestTwoTablesLiveSideBySide(t *testing.T) {
	w := newWorld(t, testConfig())
	apply(t, w, up)
	cfg := testConfig()
	cfg.Table, cfg.NetNS = "vpnd2", w.server.Fd()
	cfg.VPN.Interface, cfg.Tor.Interface = "wg2", "wg3"
	other, err := nft.New(cfg)
	must(t, err)
	_, err = other.Apply(context.Background(), down)
	must(t, err)
	if d := check(t, w); !d.OK() {
		t.Error(d)
	}
	must(t, other.Remove(context.Background()))
	if d := check(t, w); !d.OK() {
		t.Error(d)
	}
}

func TestManyCallersAtOnce(t *testing.T) {
	w := newWorld(t, testConfig())
	apply(t, w, down)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 10 {
				ctx := context.Background()
				if _, err := w.fw.Apply(ctx, nft.State{VPN: nft.VPNState((i + n) % 2)}); err != nil {
					t.Error(err)
				}
				if d, err := w.fw.Check(ctx); err != nil || !d.OK() {
					t.Error(d, err)
				}
				if _, err := w.fw.Counters(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestWithoutTheCapabilityTheErrorSaysSo(t *testing.T) {
	ns, err := netns.New()
	must(t, err)
	defer func() { _ = ns.Close() }()
	fw, err := nft.New(testConfig())
	must(t, err)
	err = ns.Do(func() error {
		runtime.LockOSThread() // the thread ends without its capabilities
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		_, err := fw.Apply(context.Background(), down)
		return err
	})
	if !errors.Is(err, fault.Denied) {
		t.Fatalf("got %v, want %s", err, fault.Denied)
	}
	if hint := fault.From(err).Hint; !strings.Contains(hint, "CAP_NET_ADMIN") {
		t.Errorf("hint %q", hint)
	}
}

func TestCancelledContextChangesNothing(t *testing.T) {
	w := newWorld(t, testConfig())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.fw.Apply(ctx, up); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply: %v", err)
	}
	if left := dump(t, w, "vpnd"); len(left) != 0 {
		t.Errorf("the table was made")
	}
}
