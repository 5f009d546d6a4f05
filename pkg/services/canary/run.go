package canary

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	api "vpnd/pkg/api/canary"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
)

// pace is how long things are waited for.
type pace struct {
	handshake time.Duration // a lost initiation is sent again after 5 s
	quiet     time.Duration // without an answer: there will be none
	settle    time.Duration // for all answers together
	echo      time.Duration // until the control is sent again
}

func normalPace() pace {
	return pace{handshake: 7 * time.Second, quiet: 400 * time.Millisecond, settle: 1500 * time.Millisecond, echo: 250 * time.Millisecond}
}

// trial is one test under way.
type trial struct {
	lane    lanes.Lane
	pace    pace
	tunnel  *tunnel
	probes  []probe
	byToken map[uint16]int
	answers []map[verdict]bool // by probe
	sent    int
}

// newTrial prepares the packets for a lane.
func newTrial(lane lanes.Lane, all []lanes.Lane, own, server []netip.Addr, tor config.Tor, p pace) *trial {
	hosts := slices.Clone(server)
	for _, l := range all {
		hosts = append(hosts, l.IPv4.Addr(), l.IPv6.Addr())
	}
	slices.SortFunc(hosts, netip.Addr.Compare)
	hosts = slices.Compact(hosts)
	// Ports that no earlier test used lately, whose connections the kernel may remember.
	pl := planner{lane: lane.Name, tor: tor, token: 20_000 + rand.N[uint16](30_000)}
	for _, addr := range own {
		gw := lane.IPv4.Addr()
		if addr.Is6() {
			gw = lane.IPv6.Addr()
		}
		pl.plan(addr, gw, hosts)
	}
	t := &trial{lane: lane, pace: p, probes: pl.out, byToken: map[uint16]int{}, answers: make([]map[verdict]bool, len(pl.out))}
	for i, p := range t.probes {
		t.byToken[p.token] = i
		t.answers[i] = map[verdict]bool{}
	}
	return t
}

// run sends everything and gathers what comes back. It fails when the packets
// cannot be shown to have arrived.
func (t *trial) run(ctx context.Context) error {
	err := t.tunnel.shakeHands(ctx, t.pace.handshake)
	if errors.Is(err, errNoHandshake) {
		return fault.Wrap(err, fault.Unavailable, "lane %s does not answer the leak test's handshake", t.lane.Name).
			WithHint("vpnctl lane get %s; vpnctl service get lanes", t.lane.Name)
	}
	if err != nil {
		return err
	}
	for _, controls := range []bool{false, true} { // the controls last: their answers prove the rest arrived
		for _, p := range t.probes {
			if (p.reach == control) != controls {
				continue
			}
			for _, b := range p.packets {
				if err := t.tunnel.send(ctx, b); err != nil {
					return err
				}
				t.sent++
			}
		}
	}
	return t.gather(ctx)
}

func (t *trial) gather(ctx context.Context) error {
	end, quiet, again := time.NewTimer(t.pace.settle), time.NewTimer(t.pace.quiet), time.NewTicker(t.pace.echo)
	defer end.Stop()
	defer quiet.Stop()
	defer again.Stop()
	for {
		select {
		case b := <-t.tunnel.in:
			if err := t.take(ctx, b); err != nil {
				return err
			}
			quiet.Reset(t.pace.quiet)
		case <-again.C:
			for _, i := range t.unproven() {
				if err := t.tunnel.send(ctx, t.probes[i].packets[0]); err != nil {
					return err
				}
			}
		case <-quiet.C:
			if len(t.unproven()) == 0 {
				return nil
			}
			quiet.Reset(t.pace.quiet)
		case <-end.C:
			if missing := t.unproven(); len(missing) > 0 {
				return fault.New(fault.Unavailable, "lane %s does not answer an echo of its gateway over %s, so nothing shows that the leak test's packets arrived",
					t.lane.Name, t.probes[missing[0]].family()).WithHint("vpnctl lane get %s; vpnctl service get lanes", t.lane.Name)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take notes an answer, and ends a connection that somebody has accepted.
func (t *trial) take(ctx context.Context, b []byte) error {
	a, ok := readAnswer(b)
	if !ok {
		return nil
	}
	i, ok := t.byToken[a.token]
	if !ok || t.probes[i].src != a.dst {
		return nil
	}
	t.answers[i][a.what] = true
	if !a.tcp {
		return nil
	}
	back := path{a.dst, a.src}
	return t.tunnel.send(ctx, back.packet(unix.IPPROTO_TCP, a.token, back.tcp(a.token, a.from, a.ack, a.seq+1, tcpRST|tcpACK)))
}

// unproven are the controls without an answer.
func (t *trial) unproven() []int {
	var out []int
	for i, p := range t.probes {
		if p.reach == control && !t.answers[i][reply] {
			out = append(out, i)
		}
	}
	return out
}

// attempts sums the probes up by kind and family.
func (t *trial) attempts(states ...string) []api.Attempt {
	var out []api.Attempt
	var words []map[verdict]bool
	for i, p := range t.probes {
		at := slices.IndexFunc(out, func(a api.Attempt) bool { return a.Kind == p.kind && a.Family == p.family() })
		if at < 0 {
			at = len(out)
			out, words = append(out, api.Attempt{Kind: p.kind, Family: p.family()}), append(words, map[verdict]bool{})
		}
		out[at].Sent += len(p.packets)
		if len(t.answers[i]) == 0 {
			words[at][nothing] = true
		}
		for what := range t.answers[i] {
			words[at][what] = true
			out[at].Leaked = out[at].Leaked || p.leaked(t.lane.Name, what, states...)
		}
	}
	for i := range out {
		var said []string
		for _, w := range []verdict{reply, reset, refused, expired, nothing} {
			if words[i][w] {
				said = append(said, string(w))
			}
		}
		out[i].Answer = strings.Join(said, ", ")
	}
	return out
}
