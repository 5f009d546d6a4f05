package streams

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"vpnd/pkg/torctl"
)

// takeOver learns what is there from tor and from the journal.
func (a *Attacher) takeOver(ctx context.Context, before record) error {
	circuits, err := a.ctl.Circuits(ctx)
	if err != nil {
		return err
	}
	streams, err := a.ctl.Streams(ctx)
	if err != nil {
		return err
	}
	for _, c := range circuits {
		known := a.circuit(c)
		for _, d := range before.circuits[c.ID] {
			if !known.devices[d] {
				known.devices[d] = true
				a.journal.circuit(c.ID, d)
			}
		}
		if before.ours[c.ID] { // whose group it was is not known any more
			known.ours, known.dirty = true, true
			a.journal.own(c.ID)
		}
	}
	for _, st := range streams {
		a.found(st, before.streams)
	}
	for d, keys := range before.names {
		for key := range keys {
			a.onions.note(d, key)
			a.journal.name(d, key)
		}
	}
	a.suspect()
	if err := a.journal.commit(); err != nil {
		a.log.Warn("journal.failed", "err", err)
	}
	return nil
}

// suspect marks circuits that may have carried streams which came and went
// while nobody read events. tor keeps a circuit to one device, so one with a
// known user carried no other's.
func (a *Attacher) suspect() {
	for _, c := range a.circuits {
		switch c.purpose {
		case "GENERAL", "CONFLUX_LINKED", "HS_CLIENT_REND":
			c.strangers = c.strangers || !c.ours && c.status == "BUILT" && len(c.path) > 1 && len(c.devices) == 0
		}
	}
}

// found takes in a stream that was there before its event was read.
func (a *Attacher) found(st torctl.Stream, sources map[string]netip.Addr) {
	if torsOwn(st.Target) {
		return
	}
	s := &stream{id: st.ID, target: st.Target, since: time.Now()}
	if d, ok := sources[st.ID]; ok {
		s.device = d
		a.journal.stream(st.ID, d)
		a.open[d]++
	} else {
		s.unknown = true
	}
	s.pending = unattached(st)
	a.streams[st.ID] = s
	a.place(s, st.Circuit)
}

// again compares with tor after events were lost.
func (a *Attacher) again(ctx context.Context) {
	streams, err := a.ctl.Streams(ctx)
	if err != nil {
		return // the connection ends then, and all is taken over anew
	}
	here := map[string]bool{}
	for _, st := range streams {
		here[st.ID] = true
		s := a.streams[st.ID]
		switch {
		case s == nil:
			a.found(st, nil)
		case !unattached(st):
			a.place(s, st.Circuit)
		case !s.pending && !s.closed: // detached, or with tor, which says so
			a.leave(s)
			s.pending = true
			a.decide(ctx, s)
		}
	}
	for id, s := range a.streams {
		if !here[id] {
			a.forget(s)
		}
	}
	circuits, err := a.ctl.Circuits(ctx)
	if err != nil {
		return
	}
	there := map[string]bool{}
	for _, c := range circuits {
		there[c.ID] = true
		a.circuitEvent(ctx, c)
	}
	for id, c := range a.circuits {
		if !there[id] {
			a.circuitGone(ctx, c)
		}
	}
	a.suspect()
}

// unattached says that a stream of a list waits to be attached. tor tells no
// difference between those that wait for us and for a circuit of its choosing.
func unattached(st torctl.Stream) bool {
	return (st.Status == "NEW" || st.Status == "NEWRESOLVE") && (st.Circuit == "" || st.Circuit == "0")
}

// torsOwn knows tor's directory fetches, which lists do not tell apart
// otherwise: they go to ADDRESS.$FINGERPRINT.exit:PORT.
func torsOwn(target string) bool {
	host, _ := splitTarget(target)
	return strings.Contains(host, ".$") && strings.HasSuffix(host, ".exit")
}
