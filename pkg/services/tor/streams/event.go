package streams

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"vpnd/pkg/torctl"
)

func (a *Attacher) event(ctx context.Context, e torctl.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.Lost > 0 {
		a.log.Warn("tor.events_lost", "count", e.Lost)
		a.again(ctx)
	}
	if c, ok := e.Circuit(); ok {
		a.circuitEvent(ctx, c)
	} else if st, ok := e.Stream(); ok {
		a.streamEvent(ctx, st)
	}
}

func (a *Attacher) circuitEvent(ctx context.Context, e torctl.Circuit) {
	c := a.circuit(e)
	switch e.Status {
	case "BUILT":
		if !c.building {
			return
		}
		c.building = false
		for _, s := range a.waiting(c.id) {
			if s.waits = ""; c.epoch == a.epoch {
				a.attach(ctx, s, c)
			} else {
				a.decide(ctx, s)
			}
		}
	case "FAILED", "CLOSED":
		a.circuitGone(ctx, c)
	}
}

func (a *Attacher) circuitGone(ctx context.Context, c *circuit) {
	delete(a.circuits, c.id)
	a.journal.circuitGone(c.id)
	a.failed(ctx, c)
}

func (a *Attacher) streamEvent(ctx context.Context, e torctl.Stream) {
	s := a.streams[e.ID]
	switch e.Status {
	case "NEW", "NEWRESOLVE":
		if e.Purpose != "USER" && e.Purpose != "DNS_REQUEST" {
			return // tor's own, which tor attaches
		}
		if s == nil {
			s = &stream{id: e.ID, target: e.Target, pending: true, since: time.Now(), unknown: true}
			a.streams[e.ID] = s
		}
		if s.unknown { // otherwise it was in the journal
			a.learn(ctx, s, e)
		}
	case "REMAP":
		if s != nil {
			s.target = e.Target
		}
	case "SENTCONNECT", "SENTRESOLVE", "SUCCEEDED":
		if s != nil {
			a.place(s, e.Circuit)
			if s.renew {
				a.closeLegs(ctx, e.Circuit)
			}
		}
	case "DETACHED":
		// One of another circuit is older than a list that was read since.
		if s != nil && !s.closed && (s.circuit == "" || s.circuit == e.Circuit || e.Circuit == "" || e.Circuit == "0") {
			a.detached(ctx, s)
		}
	case "FAILED", "CLOSED":
		if s != nil {
			a.forget(s)
		}
	}
}

// learn takes the source of a stream from its first event.
func (a *Attacher) learn(ctx context.Context, s *stream, e torctl.Stream) {
	source := e.Source.Addr()
	if text := e.Fields["SOURCE_ADDR"]; text != "" && !source.IsValid() && !ownSource(text) {
		return // what cannot be read stays unknown
	}
	s.unknown = false
	if source.IsValid() {
		s.device = a.rules.Device(source.Unmap())
	}
	if s.device.IsValid() {
		a.journal.stream(s.id, s.device)
		a.open[s.device]++
		a.heardName(s)
	}
	if on := s.circuit; on != "" { // now with its device
		a.leave(s)
		a.place(s, on)
	} else if s.pending {
		a.decide(ctx, s)
	}
}

// detached puts a stream that tor could not connect where it was somewhere else.
func (a *Attacher) detached(ctx context.Context, s *stream) {
	if c := a.circuits[s.circuit]; c != nil && c.ours {
		// Its exit refused, or the target is dead: a user must not be able to
		// take an exit from the others, so only this stream avoids it.
		c.dirty = true
		if exit := c.exit(); exit != "" {
			if s.avoid == nil {
				s.avoid = map[string]bool{}
			}
			s.avoid[exit] = true
		}
		s.tries++
	}
	a.leave(s)
	s.pending = true
	a.decide(ctx, s)
}

// decide finds the place of a stream that is not attached.
func (a *Attacher) decide(ctx context.Context, s *stream) {
	switch {
	case s.unknown:
		// sweep deals with it, unless its event comes first
	case !s.device.IsValid():
		a.giveToTor(ctx, s) // a request of our own
	case a.rules.Refuse(s.device):
		a.close(ctx, s, "the leak test's")
	case a.open[s.device] > streamsMax:
		a.close(ctx, s, "its device has too many")
	case a.foreignOnion(ctx, s):
		a.close(ctx, s, "its device asked for no onion name of that address")
	case a.toOnion(s) || !a.rules.AnyChoice():
		a.giveToTor(ctx, s)
	default:
		// Whose the device is may take a question to another process.
		epoch := a.epoch
		a.asking.Go(func() { a.choose(ctx, s, epoch) })
	}
}

// choose is decide once it is known which choice holds.
func (a *Attacher) choose(ctx context.Context, s *stream, epoch uint64) {
	choice, ok, err := a.rules.Choice(ctx, s.device)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case ctx.Err() != nil || a.streams[s.id] != s || !s.pending:
	case epoch != a.epoch:
		a.decide(ctx, s) // the choice may be another one now
	case err != nil:
		a.log.Warn("stream.owner_unknown", "err", err)
		a.close(ctx, s, "its owner is not known, and a strict choice may hold")
	case !ok:
		a.giveToTor(ctx, s)
	default:
		a.byChoice(ctx, s, choice)
	}
}

func (a *Attacher) foreignOnion(ctx context.Context, s *stream) bool {
	host, _ := splitTarget(s.target)
	ip, err := netip.ParseAddr(host)
	return err == nil && a.rules.Virtual(ip.Unmap()) && !a.mayUse(ctx, s, ip.Unmap())
}

func (a *Attacher) toOnion(s *stream) bool {
	host, _ := splitTarget(s.target)
	if ip, err := netip.ParseAddr(host); err == nil {
		return a.rules.Virtual(ip)
	}
	return strings.HasSuffix(nameOf(host), ".onion")
}

// sweep is the net under the events.
func (a *Attacher) sweep(ctx context.Context) {
	now := time.Now()
	for _, s := range a.streams {
		switch {
		case !s.pending:
		case s.unknown && now.Sub(s.since) < unknownAfter:
		case s.unknown && a.rules.AnyChoice():
			a.close(ctx, s, "it was there before the service, and may be of a user with a strict choice")
		case s.unknown:
			a.giveToTor(ctx, s)
		case s.waits != "":
			c := a.circuits[s.waits]
			if c != nil && c.building {
				continue
			}
			if c != nil { // tor refused to attach it there
				c.dirty = true
				s.tries++
			}
			s.waits = ""
			a.decide(ctx, s)
		}
	}
	for _, c := range a.circuits {
		switch {
		case !c.ours:
		case c.building && now.Sub(c.made) > launchTimeout:
			a.closeCircuit(ctx, c)
			a.failed(ctx, c)
		case c.building:
		case c.dirty && c.streams == 0:
			a.closeCircuit(ctx, c)
		case c.usedAt.IsZero() && now.Sub(c.made) > dirtyAfter, !c.usedAt.IsZero() && now.Sub(c.usedAt) > dirtyAfter:
			c.dirty = true
		}
	}
	for exit, until := range a.bad {
		if now.After(until) {
			delete(a.bad, exit)
		}
	}
}

// ownSource says that a source is no device's: a request within tor, or one
// through a Unix socket, whose path tor gives.
func ownSource(text string) bool {
	return strings.HasPrefix(text, "(Tor_internal)") || strings.HasPrefix(text, "/")
}

// forget drops a stream that is gone.
func (a *Attacher) forget(s *stream) {
	a.leave(s)
	delete(a.streams, s.id)
	a.journal.streamGone(s.id)
	if a.open[s.device]--; a.open[s.device] <= 0 {
		delete(a.open, s.device)
	}
}
