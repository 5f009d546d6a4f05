package streams_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/torctl"
)

// Where a stream of the fake is, in tor's states.
const (
	controllerWait = iota
	circuitWait
	connectWait
	open
)

type fakeStream struct {
	id, target, circuit string
	source              string // as tor writes it; empty: tor's own
	state               int
}

type fakeCircuit struct {
	id, exit, maker, conflux string // maker: "us", or the source that tor made it for
	path                     []string
	built, used, general     bool
}

// attachment is a stream that reached a circuit, by ours or tor's doing.
type attachment struct{ stream, source, target, circuit, exit, maker string }

// fake is tor with __LeaveStreamsUnattached, as much of it as this package sees.
type fake struct {
	mu       sync.Mutex
	streams  map[string]*fakeStream
	circuits map[string]*fakeCircuit
	last     int
	events   chan torctl.Event
	lost     int
	deaf     bool // events are lost

	calls     []string // what was asked
	attached  []attachment
	closed    map[string]bool // streams that were closed by the controller
	build     func(exit string) (time.Duration, bool)
	connect   func(target, exit string) bool
	broken    bool
	virtual   map[string]string // addresses that stand for onion names
	unwilling int               // circuits that are refused
	closing   func(*fakeStream) // just before the controller closes it
	attachAt  chan time.Time
}

func newFake() *fake {
	return &fake{
		streams: map[string]*fakeStream{}, circuits: map[string]*fakeCircuit{}, closed: map[string]bool{}, last: 10,
		build:   func(string) (time.Duration, bool) { return 100 * time.Millisecond, true },
		connect: func(string, string) bool { return true },
	}
}

func (f *fake) say(format string, args ...any) {
	e, err := torctl.ParseEvent(fmt.Sprintf(format, args...))
	if err != nil {
		panic(err)
	}
	e.Lost = f.lost
	if f.deaf {
		f.lost++
		return
	}
	select {
	case f.events <- e:
		f.lost = 0
	default:
		f.lost++
	}
}

func (f *fake) id() string { f.last++; return fmt.Sprint(f.last) }

func word(path []string) string {
	var out []string
	for _, p := range path {
		out = append(out, "$"+p+"~nick")
	}
	return strings.Join(out, ",")
}

// open begins a stream, as a device does.
func (f *fake) open(source, target string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &fakeStream{id: f.id(), source: source, target: target}
	f.streams[s.id] = s
	if strings.HasSuffix(target, ":0") {
		f.say("STREAM %s NEWRESOLVE 0 %s SOURCE_ADDR=%s PURPOSE=DNS_REQUEST CLIENT_PROTOCOL=DNS", s.id, target, source)
	} else {
		f.say("STREAM %s NEW 0 %s SOURCE_ADDR=%s PURPOSE=USER CLIENT_PROTOCOL=TRANS", s.id, target, source)
	}
	f.say("STREAM %s CONTROLLER_WAIT 0 %s", s.id, target)
	return s.id
}

// drop ends a stream, as a device does.
func (f *fake) drop(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end(id)
}

func (f *fake) end(id string) {
	if s := f.streams[id]; s != nil {
		delete(f.streams, id)
		f.say("STREAM %s CLOSED %s %s REASON=DONE", id, zero(s.circuit), s.target)
	}
}

func zero(circuit string) string {
	if circuit == "" {
		return "0"
	}
	return circuit
}

func (f *fake) endCircuit(id, how string) {
	c := f.circuits[id]
	if c == nil {
		return
	}
	delete(f.circuits, id)
	for _, s := range slices.Collect(maps.Values(f.streams)) {
		if s.circuit == id {
			f.end(s.id)
		}
	}
	reached := c.path
	if !c.built {
		reached = c.path[:len(c.path)-1] // the exit is what fails
	}
	f.say("CIRC %s %s %s PURPOSE=GENERAL REASON=DESTROYED", id, how, word(reached))
}

func (f *fake) kill(circuit string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endCircuit(circuit, "CLOSED")
}

func (f *fake) put(s *fakeStream, c *fakeCircuit) {
	s.circuit, s.state, c.used = c.id, connectWait, true
	f.attached = append(f.attached, attachment{s.id, host(s.source), s.target, c.id, c.exit, c.maker})
	f.say("STREAM %s SENTCONNECT %s %s", s.id, c.id, s.target)
	works := f.connect(s.target, c.exit)
	f.after(50*time.Millisecond, func() {
		switch {
		case f.streams[s.id] != s || s.circuit != c.id:
		case works:
			s.state = open
			f.say("STREAM %s SUCCEEDED %s %s", s.id, c.id, s.target)
		default:
			f.say("STREAM %s DETACHED %s %s REASON=TIMEOUT", s.id, c.id, s.target)
			s.circuit, s.state = "", controllerWait
		}
	})
}

func (f *fake) after(d time.Duration, do func()) {
	if d == 0 {
		do()
		return
	}
	time.AfterFunc(d, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		do()
	})
}

func host(source string) string {
	i := strings.LastIndexByte(source, ':')
	return source[:max(i, 0)]
}

// choose is tor's own choice: one circuit, of two legs, for each source.
func (f *fake) choose(s *fakeStream) {
	f.after(20*time.Millisecond, func() {
		if f.streams[s.id] != s || s.state != circuitWait {
			return
		}
		for _, c := range f.circuits {
			if c.built && c.maker == host(s.source) {
				f.put(s, c)
				return
			}
		}
		var first *fakeCircuit
		nonce := "C" + f.id()
		for range 2 {
			c := &fakeCircuit{id: f.id(), exit: fp("T"), maker: host(s.source), path: []string{fp("G"), fp("M"), fp("T")}, built: true, conflux: nonce}
			f.circuits[c.id] = c
			f.say("CIRC %s BUILT %s PURPOSE=CONFLUX_LINKED CONFLUX_ID=%s", c.id, word(c.path), nonce)
			first = c
		}
		f.put(s, first)
	})
}

func (f *fake) note(ctx context.Context, format string, args ...any) error {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	if f.broken || ctx.Err() != nil { // as torctl breaks, and refuses later ones
		return fault.New(fault.Unavailable, "the connection to tor is broken")
	}
	return nil
}

func fp(letter string) string { return strings.Repeat(letter, 40) }

// on gives the attachments of a stream.
func (f *fake) on(id string) (out []attachment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.attached {
		if a.stream == id {
			out = append(out, a)
		}
	}
	return out
}

func (f *fake) count(prefix string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

func (f *fake) wasClosed(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed[id]
}

var (
	alice = netip.MustParseAddr("10.9.0.2")
	bob   = netip.MustParseAddr("10.9.0.25")
)
