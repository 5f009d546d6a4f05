package lanes

import (
	"context"
	"net/netip"
	"time"

	"vpnd/pkg/api/events"
	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/nft"
	"vpnd/pkg/rpc"
)

// adoptFor is how long a state that an earlier run of ours left in the kernel
// holds without being asked for: the tor service needs a second to ask.
const adoptFor = 10 * time.Second

const (
	whySilent  = "the tor service is silent"
	whyStarted = "nothing passes: the tor service has not asked for the lane yet"
)

// torLease is the state of lane tor and how long it holds.
type torLease struct {
	state  nft.TorState
	reason string
	since  time.Time
	until  time.Time
}

func torStateOf(s api.TorState) nft.TorState {
	switch s {
	case api.TorUp:
		return nft.TorUp
	case api.TorMaintenance:
		return nft.TorMaintenance
	}
	return nft.TorBlocked
}

func torStateName(s nft.TorState) api.TorState {
	switch s {
	case nft.TorUp:
		return api.TorUp
	case nft.TorMaintenance:
		return api.TorMaintenance
	}
	return api.TorBlocked
}

// SetTor gives lane tor a state for the length of a lease, and returns when the
// rules hold.
func (l *Lanes) SetTor(ctx context.Context, state api.TorState, reason string, lease time.Duration) (api.TorAnswer, error) {
	select {
	case <-l.guarded:
	case <-ctx.Done():
		return api.TorAnswer{}, ctx.Err()
	}
	l.flipping.Lock()
	defer l.flipping.Unlock()
	want := torStateOf(state)
	if want != l.torState() {
		if err := l.apply(ctx, nft.State{VPN: l.vpnState(), Tor: want}); err != nil {
			return api.TorAnswer{}, err
		}
	}
	l.noteTor(ctx, want, reason, lease)
	l.mu.Lock()
	out := api.TorAnswer{State: torStateName(l.tor.state), Since: l.tor.since}
	l.mu.Unlock()
	if ln := l.lanes[1]; ln.present() {
		for _, g := range ln.gateways() {
			out.Gateways = append(out.Gateways, g.Addr())
		}
	}
	out.Canary = canaryAddrs(l.lanes[1].cfg)
	if out.Gateways == nil {
		out.Gateways = []netip.Addr{}
	}
	return out, nil
}

// noteTor remembers what the rules hold now, and tells of a change.
func (l *Lanes) noteTor(ctx context.Context, state nft.TorState, reason string, lease time.Duration) {
	now := time.Now()
	l.mu.Lock()
	changed := l.tor.state != state
	if changed || l.tor.since.IsZero() {
		l.tor.since = now.UTC()
	}
	l.tor.state, l.tor.reason, l.tor.until = state, reason, now.Add(lease)
	l.mu.Unlock()
	l.lanes[1].show(string(torStateName(state)), reason)
	if changed {
		l.laneChanged(ctx, api.Tor, string(torStateName(state)), reason)
	}
}

// laneChanged tells the log and people the new state first, then why.
func (l *Lanes) laneChanged(ctx context.Context, lane api.Name, state, reason string) {
	text, about := state, []any{"lane", lane, "state", state}
	if reason != "" {
		text += ": " + reason
		about = append(about, "reason", reason)
	}
	if request := rpc.RequestID(ctx); request != "" {
		about = append(about, "request_id", request)
	}
	l.log.InfoContext(ctx, "lane.changed", about...)
	l.publish(events.Event{Type: "lane.changed", Reason: state, Message: text, Data: map[string]string{"lane": string(lane)}})
}

func (l *Lanes) torState() nft.TorState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tor.state
}

// expireTor blocks lane tor when nobody has asked for it for a lease.
func (l *Lanes) expireTor(ctx context.Context) {
	l.flipping.Lock()
	defer l.flipping.Unlock()
	l.mu.Lock()
	over := l.tor.state != nft.TorBlocked && time.Now().After(l.tor.until)
	l.mu.Unlock()
	if !over {
		return
	}
	if err := l.apply(ctx, nft.State{VPN: l.vpnState()}); err != nil {
		l.log.Error("lane.not_blocked", "lane", api.Tor, "err", err)
		return
	}
	l.noteTor(ctx, nft.TorBlocked, whySilent, 0)
}

// adoptTor finds the state that an earlier run of ours left in the kernel and
// keeps it for a lease, so that a restart cuts no connection. Rules that are of
// no state are for guard to replace.
func (l *Lanes) adoptTor(ctx context.Context) {
	for _, state := range []nft.TorState{nft.TorUp, nft.TorMaintenance} {
		held, err := l.wall.Adopt(ctx, nft.State{VPN: l.vpnState(), Tor: state})
		if err == nil && held {
			l.noteTor(ctx, state, "as it was before a restart", adoptFor)
			return
		}
	}
}
