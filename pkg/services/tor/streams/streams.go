package streams

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"vpnd/pkg/torctl"
	"vpnd/pkg/torpath"
)

const (
	launchTimeout = 8 * time.Second  // a circuit of ours that is not built by then is given up
	dirtyAfter    = 10 * time.Minute // as tor's MaxCircuitDirtiness: no new streams after it
	badFor        = time.Minute      // a relay that failed is the last to be tried for so long
	unknownAfter  = 500 * time.Millisecond
	maxTries      = 4
	maxBuilding   = 16   // circuits that one device may have built at a time; more wait for a sweep
	streamsMax    = 1024 // of one device at once: tor has as many files as it has, for all
	maxGiven      = 8    // times that a stream is given back to tor
	sweepEvery    = time.Second
)

// Control is what is used of a torctl.Client.
type Control interface {
	Events(ctx context.Context, codes ...string) (<-chan torctl.Event, error)
	Circuits(ctx context.Context) ([]torctl.Circuit, error)
	Streams(ctx context.Context) ([]torctl.Stream, error)
	AttachStream(ctx context.Context, id, circuit string) error
	CloseStream(ctx context.Context, id string) error
	CloseCircuit(ctx context.Context, id string) error
	ExtendCircuit(ctx context.Context, path []string) (string, error)
	OpenCircuit(ctx context.Context, id string) error
	AddressMappings(ctx context.Context) ([]torctl.Mapping, error)
}

// Choice is where a user's streams shall leave Tor.
type Choice struct {
	Exits  torpath.Exits
	Strict bool // no such exit: no connection
}

func (c Choice) name() string {
	return strings.Join(c.Exits.Countries, ",") + "/" + strings.Join(c.Exits.Fingerprints, ",")
}

// Rules are the answers that others give. All may be called at any time, and
// all but Choice must not block.
type Rules struct {
	// Device is the device behind a stream's source: a loopback address stands for one.
	Device func(source netip.Addr) netip.Addr
	// Refuse says that streams of this device lead nowhere.
	Refuse func(device netip.Addr) bool
	// AnyChoice says that at least one choice is set.
	AnyChoice func() bool
	// Choice is the one that holds for the device; ok is false without one. An
	// error means that it cannot be known now.
	Choice func(ctx context.Context, device netip.Addr) (c Choice, ok bool, err error)
	// PerDestination keeps a device's destinations apart as well.
	PerDestination func() bool
	// Virtual says that the address stands for an onion name.
	Virtual func(netip.Addr) bool
	// Path chooses the relays of a circuit.
	Path func(e torpath.Exits, t torpath.Target, avoid map[string]bool) ([]string, error)
}

type stream struct {
	id, target, circuit string
	device              netip.Addr // not valid: not a device's, or unknown
	unknown             bool       // it was there before us and in no journal
	pending             bool       // not attached
	closed              bool       // by us; tor's event is on its way
	renew               bool       // closed by a new identity: a circuit that it still came on goes too
	waits               string     // what a pending one waits for: a circuit of ours, its turn, or (empty) an answer
	tries, given        int
	avoid               map[string]bool // exits that could not connect it
	since               time.Time
}

type circuit struct {
	id, status, purpose string
	conflux             string              // the same for both legs
	path                []string            // fingerprints; of one that is being built, as planned
	devices             map[netip.Addr]bool // whose streams it carries or carried
	strangers           bool                // may have carried streams of unknown source; see theirs
	streams             int

	ours     bool
	group    group // of ours: which streams may use it
	made     time.Time
	usedAt   time.Time // first use
	dirty    bool      // no new streams
	building bool
	reached  int    // hops of one that is being built
	general  bool   // of ours: fit for look-ups
	epoch    uint64 // when it was launched
}

// group is what may share a circuit of ours.
type group struct {
	device netip.Addr
	choice string
	dest   string // with isolation per destination
}

// Attacher serves one connection to one tor.
type Attacher struct {
	ctl     Control
	rules   Rules
	log     *slog.Logger
	journal *journal

	mu       sync.Mutex // held while tor is asked too, so that events and commands have one order
	streams  map[string]*stream
	circuits map[string]*circuit
	bad      map[string]time.Time // relays that failed, until when
	open     map[netip.Addr]int   // streams of each device
	onions   onions
	epoch    uint64 // rises when answers to Choice become old

	asking sync.WaitGroup // questions to Choice
}

// Start takes over all streams of a tor. journalPath is a file of ours in a
// folder that a reboot empties; life tells one run of tor from another.
// Run has to follow.
func Start(ctx context.Context, ctl Control, rules Rules, journalPath, life string, log *slog.Logger) (*Attacher, <-chan torctl.Event, error) {
	// Events first: nothing may happen between the lists and the first event.
	events, err := ctl.Events(ctx, "STREAM", "CIRC")
	if err != nil {
		return nil, nil, err
	}
	j, before, err := openJournal(journalPath, life)
	if err != nil {
		log.Warn("journal.failed", "err", err) // streams of before have no owner then; see NewIdentity
	}
	a := &Attacher{
		ctl: ctl, rules: rules, log: log, journal: j,
		streams: map[string]*stream{}, circuits: map[string]*circuit{}, bad: map[string]time.Time{}, open: map[netip.Addr]int{},
		onions: onions{asked: map[netip.Addr]map[string]bool{}, stale: true},
	}
	if err := a.takeOver(ctx, before); err != nil {
		_ = j.close()
		return nil, nil, err
	}
	return a, events, nil
}

// Run attaches streams until the connection or ctx ends.
func (a *Attacher) Run(ctx context.Context, events <-chan torctl.Event) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		a.asking.Wait()
		a.mu.Lock()
		a.journal.close()
		a.mu.Unlock()
	}()
	a.mu.Lock()
	for _, s := range a.streams { // taken over
		if s.pending {
			a.decide(ctx, s)
		}
	}
	a.mu.Unlock()
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				return
			}
			a.event(ctx, e)
		case <-t.C:
			a.mu.Lock()
			a.sweep(ctx)
			a.mu.Unlock()
		}
	}
}

// circuit is the circuit of an event, made when new.
func (a *Attacher) circuit(c torctl.Circuit) *circuit {
	known := a.circuits[c.ID]
	if known == nil {
		known = &circuit{id: c.ID, devices: map[netip.Addr]bool{}, made: time.Now()}
		a.circuits[c.ID] = known
	}
	known.status = c.Status
	if id := c.Fields["CONFLUX_ID"]; id != "" {
		known.conflux = id
	}
	if c.Purpose != "" {
		known.purpose = c.Purpose
	}
	if known.building {
		known.reached = max(known.reached, len(c.Path))
	}
	if len(c.Path) > 0 && !known.building { // an event tells the hops so far only
		known.path = nil
		for _, h := range c.Path {
			known.path = append(known.path, h.Fingerprint)
		}
	}
	return known
}

// place notes that a stream is on a circuit.
func (a *Attacher) place(s *stream, id string) {
	if s.circuit == id || id == "" || id == "0" {
		return
	}
	a.leave(s)
	c := a.circuits[id]
	if c == nil {
		c = a.circuit(torctl.Circuit{ID: id})
	}
	s.circuit, s.pending, s.waits = id, false, ""
	if c.ours && s.device != c.group.device {
		c.dirty = true // tor put it there by itself
	}
	c.streams++
	if c.usedAt.IsZero() {
		c.usedAt = time.Now()
	}
	switch {
	case s.unknown:
		c.strangers = true
	case s.device.IsValid() && !c.devices[s.device]:
		c.devices[s.device] = true
		a.journal.circuit(id, s.device)
	}
}

func (a *Attacher) leave(s *stream) {
	if c := a.circuits[s.circuit]; c != nil {
		c.streams--
	}
	s.circuit = ""
}
