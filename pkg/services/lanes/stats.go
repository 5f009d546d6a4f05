package lanes

import (
	"context"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/lanes"
	"vpnd/pkg/fault"
	"vpnd/pkg/wgdev"
)

// freshenMax is how many peers there may be for a removal to read all counters
// once more: a device's cost must not depend on how many there are, so beyond
// it the latest reading counts, a few seconds old.
const freshenMax = 100

// freshen reads the counters once more. Those who ask while others wait share
// a reading: any that began after they asked will do.
func (l *Lanes) freshen(ctx context.Context) {
	l.mu.Lock()
	n := len(l.want)
	l.mu.Unlock()
	if n == 0 || n > freshenMax {
		return
	}
	mine := l.readings.Load() + 1
	l.reading.Lock()
	defer l.reading.Unlock()
	if l.read >= mine {
		return
	}
	l.read = l.readings.Add(1)
	if _, err := l.Stats(ctx); err != nil {
		l.log.Debug("counters.not_read", "err", err)
	}
}

// Stats reads all counters and remembers where peers were heard from. It fails
// unless both interfaces answer: half of a device's counters would look as if
// the other half had started anew.
func (l *Lanes) Stats(ctx context.Context) ([]api.PeerStats, error) {
	var states [2][]wgdev.PeerState
	err := l.bothLanes(func(i int) (err error) {
		states[i], err = l.lanes[i].peers(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	stats := make(map[id.Device]*api.PeerStats, len(states[0]))
	for _, peers := range states {
		l.observe(peers)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, peers := range states {
		for _, p := range peers {
			device, ok := l.byKey[p.PublicKey]
			if !ok {
				continue
			}
			st := stats[device]
			if st == nil {
				st = &api.PeerStats{Device: device}
				stats[device] = st
			}
			add(st, l.lanes[i].name, p)
		}
	}
	out := make([]api.PeerStats, 0, len(stats))
	for d, st := range stats {
		l.last[d] = *st
		out = append(out, *st)
	}
	return out, nil
}

// add adds what one interface knows of a device.
func add(st *api.PeerStats, lane api.Name, p wgdev.PeerState) {
	c := api.Counters{RxBytes: int64(p.RxBytes), TxBytes: int64(p.TxBytes)}
	if lane == api.VPN {
		st.VPN = c
	} else {
		st.Tor = c
	}
	if p.LastHandshake.IsZero() || (st.LastHandshake != nil && st.LastHandshake.After(p.LastHandshake)) {
		return
	}
	t := p.LastHandshake.UTC()
	st.LastHandshake, st.HandshakeLane, st.Endpoint = &t, lane, ""
	if p.Endpoint.IsValid() {
		st.Endpoint = p.Endpoint.String()
	}
}

// List describes both lanes.
func (l *Lanes) List() []api.Lane {
	l.mu.Lock()
	peers, wallErr := len(l.want), l.wallErr
	l.mu.Unlock()
	out := make([]api.Lane, len(l.lanes))
	for i, ln := range l.lanes {
		out[i] = ln.describe()
		out[i].Peers = peers
		if wallErr != nil && out[i].State != stateFailed {
			out[i].State, out[i].Reason = stateFailed, "firewall: "+wallErr.Error()
		}
	}
	return out
}

// Ready tells why a lane does not carry what it should.
func (l *Lanes) Ready() error {
	for _, ln := range l.List() {
		if ln.State == stateFailed || ln.State == stateDown && ln.Reason != whyOperator {
			return fault.New(fault.Unavailable, "lane %s: %s", ln.Name, ln.Reason)
		}
	}
	return nil
}
