package streams

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/torpath"
)

// giveToTor lets tor choose the circuit.
func (a *Attacher) giveToTor(ctx context.Context, s *stream) {
	if s.given++; s.given > maxGiven {
		a.close(ctx, s, "tor finds no way to its target")
		return
	}
	s.pending, s.waits = false, ""
	// NotFound: it is gone. Conflict: tor has it already.
	if err := a.ctl.AttachStream(ctx, s.id, "0"); err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Conflict) {
		a.log.Warn("stream.attach_failed", "stream", s.id, "err", err)
	}
}

// byChoice puts a stream on a circuit with an exit of the choice.
func (a *Attacher) byChoice(ctx context.Context, s *stream, choice Choice) {
	if s.tries >= maxTries {
		a.noExit(ctx, s, choice)
		return
	}
	g := group{device: s.device, choice: choice.name()}
	if a.rules.PerDestination() {
		g.dest = s.target
	}
	var best *circuit
	building := 0
	for _, c := range a.circuits {
		if c.building && c.group.device == s.device {
			building++
		}
		if c.ours && !c.dirty && c.group == g && (best == nil || best.building) && a.suits(c, s) {
			best = c
		}
	}
	switch {
	case best != nil && best.building:
		s.waits = best.id
	case best != nil:
		a.attach(ctx, s, best)
	case building >= maxBuilding:
		s.waits = turn
	default:
		a.launch(ctx, s, choice, g)
	}
}

// turn is what a stream waits for while too many circuits are being built for
// its device. No circuit has this id.
const turn = "turn"

// suits says whether the circuit's exit lets the stream's target out: the same
// question that made its path.
func (a *Attacher) suits(c *circuit, s *stream) bool {
	exit := c.exit()
	if exit == "" || s.avoid[exit] {
		return false
	}
	_, err := a.rules.Path(torpath.Exits{Fingerprints: []string{exit}}, targetOf(s.target), nil)
	return !errors.Is(err, torpath.ErrNoExit)
}

// exit is the fingerprint of the last relay, empty while it is not known.
func (c *circuit) exit() string {
	if len(c.path) == 0 {
		return ""
	}
	return c.path[len(c.path)-1]
}

func (a *Attacher) launch(ctx context.Context, s *stream, choice Choice, g group) {
	target := targetOf(s.target)
	avoid := map[string]bool{}
	for exit := range a.bad {
		avoid[exit] = true
	}
	maps.Copy(avoid, s.avoid)
	path, err := a.rules.Path(choice.Exits, target, avoid)
	if err != nil && len(avoid) > 0 && choice.Strict {
		path, err = a.rules.Path(choice.Exits, target, nil) // what failed may work again
	}
	if err != nil {
		a.noExit(ctx, s, choice)
		return
	}
	id, err := a.ctl.ExtendCircuit(ctx, path)
	if err != nil {
		a.log.Warn("circuit.refused", "err", err)
		s.tries++ // tor may lack the descriptor of one relay
		a.decide(ctx, s)
		return
	}
	// Events of it wait for the lock, so it is known before they are read.
	a.circuits[id] = &circuit{
		id: id, status: "LAUNCHED", path: path, ours: true, building: true, group: g, epoch: a.epoch,
		devices: map[netip.Addr]bool{s.device: true}, made: time.Now(),
	}
	a.journal.own(id)
	a.journal.circuit(id, s.device)
	s.waits = id
}

// noExit is the end of a choice that cannot be kept.
func (a *Attacher) noExit(ctx context.Context, s *stream, choice Choice) {
	if choice.Strict {
		a.close(ctx, s, "no exit of a strict choice takes it")
		return
	}
	a.giveToTor(ctx, s)
}

// failed finds another place for what waits for a circuit.
func (a *Attacher) failed(ctx context.Context, c *circuit) {
	if c.building && c.reached > 0 && c.reached < len(c.path) { // the guard is tor's to judge
		a.bad[c.path[c.reached]] = time.Now().Add(badFor)
	}
	c.building = false
	for _, s := range a.waiting(c.id) {
		s.waits = ""
		s.tries++
		a.decide(ctx, s)
	}
}

func (a *Attacher) attach(ctx context.Context, s *stream, c *circuit) {
	// A look-up needs the purpose general, which lets tor use the circuit too, so
	// it comes last: the stream that follows at once ties it to the device.
	var err error
	if _, port := splitTarget(s.target); port == "0" && !c.general {
		err = a.ctl.OpenCircuit(ctx, c.id)
		c.general = err == nil
	}
	if err == nil {
		err = a.ctl.AttachStream(ctx, s.id, c.id)
	}
	switch {
	case err == nil:
		a.place(s, c.id)
	case errors.Is(err, fault.Conflict) && s.given > 0:
		s.pending = false // tor has it
	case errors.Is(err, fault.Conflict):
		a.close(ctx, s, "tor has it from a service before this one, which may have known of no choice")
	default:
		// The stream is gone or the circuit is: the event of either, or sweep,
		// puts an end to this wait. A client that hangs up costs no circuit.
		s.waits = c.id
	}
}

// waiting lists the streams that wait for a circuit, the oldest first.
func (a *Attacher) waiting(circuit string) []*stream {
	var out []*stream
	for _, s := range a.streams {
		if s.waits == circuit {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(x, y *stream) int { return x.since.Compare(y.since) })
	return out
}

func (a *Attacher) close(ctx context.Context, s *stream, why string) {
	a.log.Debug("stream.closed", "stream", s.id, "why", why)
	if err := a.shut(ctx, s); err != nil {
		a.log.Warn("stream.close_failed", "stream", s.id, "err", err)
	}
}

func (a *Attacher) shut(ctx context.Context, s *stream) error {
	s.pending, s.waits, s.closed = false, "", true
	if err := a.ctl.CloseStream(ctx, s.id); err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

func (a *Attacher) closeCircuit(ctx context.Context, c *circuit) {
	c.dirty = true
	if err := a.ctl.CloseCircuit(ctx, c.id); err != nil && !errors.Is(err, fault.NotFound) {
		a.log.Warn("circuit.close_failed", "circuit", c.id, "err", err)
	}
}

// closeLegs closes a circuit, and the other leg if it is one of two.
func (a *Attacher) closeLegs(ctx context.Context, id string) {
	first := a.circuits[id]
	for _, c := range a.circuits {
		if c == first || first != nil && first.conflux != "" && c.conflux == first.conflux {
			a.closeCircuit(ctx, c)
		}
	}
}

// splitTarget splits at the last colon, as tor writes IPv6 with and without brackets.
func splitTarget(target string) (host, port string) {
	i := strings.LastIndexByte(target, ':')
	if i < 0 {
		return target, ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(target[:i], "["), "]"), target[i+1:]
}

func targetOf(target string) torpath.Target {
	host, port := splitTarget(target)
	n, _ := strconv.ParseUint(port, 10, 16)
	t := torpath.Target{Port: uint16(n)}
	if ip, err := netip.ParseAddr(host); err == nil {
		t.IPv4, t.IPv6 = ip.Unmap().Is4(), !ip.Unmap().Is4()
	}
	return t
}
