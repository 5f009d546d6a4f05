//go:build linux

package nft

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// Firewall is our tables in the kernel. Make it with New.
type Firewall struct {
	cfg Config

	mu       sync.Mutex // one batch or one comparison at a time
	want     *State     // what was asked for last; nil before the first Apply and after Remove
	verified generation // the ruleset generation known to hold want; 0 when none is
	unsure   bool       // the last Apply failed: what is wrong may be our own doing
	found    Drift      // what the last comparison found wrong
	foundAt  generation // when; 0 when it found nothing

	transitions map[transition][]netlink.Message // made when first needed

	seen   map[string]uint64 // the canary's counters when read last; nil before the first time
	canary Canary            // what was counted until then

	lasting *nftables.Conn // the open connection, or nil
	socket  *netlink.Conn  // what lasting talks through
}

// New makes a Firewall for a valid configuration. It does not touch the kernel.
func New(cfg Config) (*Firewall, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Firewall{cfg: cfg.withDefaults()}, nil
}

// Apply makes s hold: it makes the tables and chains that are missing, replaces
// what somebody else put into them, and swaps the rules in one batch. It is
// idempotent, and counters keep their values. When it has returned without an
// error, no packet that s forbids is forwarded any more, of flows that were open
// before neither. After an error the kernel has what it had before, or s. What
// somebody had changed since the last Apply, and is put right now, is in repaired.
//
// Where nobody has changed anything the rules change within about 0.2 ms. Where
// lane vpn goes down, or what held before is not known, Apply returns about 10 ms
// later, when no packet is on its way under the old ones; changes of lane tor need
// no such wait. The first Apply belongs before the lane interfaces come up and
// before the host forwards: nothing guards them earlier.
func (f *Firewall) Apply(ctx context.Context, s State) (repaired Drift, err error) {
	if !s.valid() {
		return Drift{}, fault.New(fault.Invalid, "firewall: no such state: %s", s)
	}
	if !f.cfg.valid(s) {
		return Drift{}, fault.New(fault.Invalid, "firewall: %s needs the ports of lane tor, and none are configured", s)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.hangUpAfter(&err)
	last := f.want
	if last != nil {
		var done bool
		done, repaired, err = f.change(ctx, transition{*last, s})
		if done {
			f.want, f.unsure = &s, false
			if s.forwardsLess(*last) {
				settle()
			}
			return Drift{}, nil
		}
	}
	f.want, f.verified, f.foundAt = &s, 0, 0
	if f.unsure {
		repaired = Drift{}
	}
	if err == nil {
		err = f.replace(ctx, s)
	}
	f.unsure = err != nil
	return repaired, err
}

// change does the least that goes from one state to the next. When somebody has
// damaged the rules it does nothing and tells what it found.
func (f *Firewall) change(ctx context.Context, t transition) (done bool, found Drift, err error) {
	if f.verified != 0 {
		if done, err = f.swap(ctx, t); done || err != nil {
			return done, Drift{}, err
		}
	}
	// Somebody changed something, perhaps in a table of his own.
	if found, err = f.check(ctx); err != nil || !found.OK() || f.verified == 0 {
		return false, found, err
	}
	done, err = f.swap(ctx, t)
	return done, Drift{}, err
}

// replace sends all there is, whatever the kernel has.
func (f *Firewall) replace(ctx context.Context, s State) error {
	before, err := f.generation(ctx)
	if err != nil {
		return err
	}
	conn, err := f.conn(ctx)
	if err != nil {
		return err
	}
	chains, err := f.chains(conn)
	if err != nil {
		return err
	}
	if err := f.batch(conn, s, chains); err != nil {
		return explain(fmt.Errorf("apply firewall state (%s): %w", s, err))
	}
	// One batch is one generation. A larger step means that somebody changed the
	// ruleset meanwhile, maybe these tables: then Check has to look.
	if after, err := f.generation(ctx); err == nil && after == before.next() {
		f.verified = after
	}
	settle()
	return nil
}

// Remove deletes the tables, with everything in them. A missing one is no error.
// The lanes are as open afterwards as the rest of the host's rules leave them,
// so forwarding is to be off or the interfaces gone before.
func (f *Firewall) Remove(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.hangUp() // the end, for most callers
	f.want, f.verified, f.foundAt, f.unsure, f.seen = nil, 0, 0, false, nil

	conn, err := f.conn(ctx)
	if err != nil {
		return err
	}
	chains, err := f.chains(conn)
	if err != nil {
		return err
	}
	// In the moment of its deletion a chain has no rules but still its policy. With
	// the policy still drop, packets that are none of our business would be lost.
	accept := nftables.ChainPolicyAccept
	for _, c := range chains {
		if c.Hooknum != nil {
			conn.AddChain(&nftables.Chain{
				Name: c.Name, Table: c.Table, Type: c.Type, Hooknum: c.Hooknum, Priority: c.Priority, Policy: &accept,
			})
		}
	}
	policyErr := conn.Flush()
	if policyErr != nil {
		f.hangUp()
	}
	if conn, err = f.conn(ctx); err != nil {
		return err
	}
	for _, name := range f.cfg.tableNames() {
		conn.AddTable(table(name)) // deleting what is not there would fail
		conn.DelTable(table(name))
	}
	if err := conn.Flush(); err != nil {
		return explain(fmt.Errorf("remove table inet %s: %w (opening its chains: %v)", f.cfg.Table, err, policyErr))
	}
	return nil
}

// batch sends everything in one transaction. A table with something in it that
// adding ours cannot put right is replaced as a whole; that is safe only because
// every chain ends in rules that say what the policy says.
func (f *Firewall) batch(conn *nftables.Conn, s State, have []*nftables.Chain) error {
	for _, want := range f.cfg.tables() {
		table := conn.AddTable(table(want.name))
		made, rebuild := want.compareChains(have)
		if rebuild {
			conn.DelTable(table)
			table = conn.AddTable(table)
		}
		if want.canary && (made || rebuild) {
			f.seen = map[string]uint64{} // its counters begin anew
		}
		for _, name := range want.counters {
			conn.AddObj(&nftables.NamedObj{Table: table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
		}
		ruleset := want.rules(s)
		for _, spec := range want.chains {
			chain := conn.AddChain(spec.chain(table))
			conn.FlushChain(chain)
			for _, r := range ruleset[spec.name] {
				conn.AddRule(&nftables.Rule{
					Table: table, Chain: chain, Exprs: r.exprs,
					UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment),
				})
			}
		}
	}
	return conn.Flush()
}

func table(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}

func (c chainSpec) chain(table *nftables.Table) *nftables.Chain {
	if !c.base() {
		return &nftables.Chain{Name: c.name, Table: table}
	}
	return &nftables.Chain{
		Name: c.name, Table: table, Type: c.kind, Hooknum: &c.hook, Priority: &c.priority, Policy: &c.policy,
	}
}

// settle waits until every packet that began its way under the old rules has
// ended it. The kernel walks rules inside RCU read sections, and this barrier
// ends after all of those that were running (membarrier(2)). It takes about
// 10 ms. Recent kernels wait likewise when a connection is closed after rules
// were deleted; nothing promises that, and a first Apply deletes none.
func settle() {
	const membarrierGlobal = 1
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	if errno != 0 {
		// Not offered on this kernel, or filtered: packets need microseconds.
		time.Sleep(20 * time.Millisecond)
	}
}
