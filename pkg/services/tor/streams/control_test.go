package streams_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/torctl"
)

// The fake as streams.Control.

func (f *fake) Events(context.Context, ...string) (<-chan torctl.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events, f.lost = make(chan torctl.Event, 4096), 0
	return f.events, nil
}

func list[T any](all []T, line func(T) string, read func(torctl.Event) (torctl.Stream, bool)) (out []torctl.Stream) {
	for _, x := range all {
		e, _ := torctl.ParseEvent(line(x))
		st, _ := read(e)
		out = append(out, st)
	}
	return out
}

func (f *fake) Streams(context.Context) ([]torctl.Stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return list(slices.Collect(maps.Values(f.streams)), func(s *fakeStream) string {
		state := []string{"NEW", "NEW", "SENTCONNECT", "SUCCEEDED"}[s.state]
		return fmt.Sprintf("STREAM %s %s %s %s", s.id, state, zero(s.circuit), s.target)
	}, torctl.Event.Stream), nil
}

func (f *fake) Circuits(context.Context) (out []torctl.Circuit, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.circuits {
		line := fmt.Sprintf("CIRC %s EXTENDED %s PURPOSE=GENERAL", c.id, word(c.path[:len(c.path)-1]))
		if c.built {
			line = fmt.Sprintf("CIRC %s BUILT %s PURPOSE=GENERAL", c.id, word(c.path))
		}
		if c.conflux != "" {
			line += " CONFLUX_ID=" + c.conflux
		}
		e, _ := torctl.ParseEvent(line)
		k, _ := e.Circuit()
		out = append(out, k)
	}
	return out, nil
}

func (f *fake) AttachStream(ctx context.Context, id, circuit string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.attachAt != nil {
		f.attachAt <- time.Now()
	}
	if err := f.note(ctx, "attach %s %s", id, circuit); err != nil {
		return err
	}
	s, c := f.streams[id], f.circuits[circuit]
	switch {
	case s == nil || c == nil && circuit != "0":
		return fault.New(fault.NotFound, "552 unknown")
	case s.state != controllerWait && s.state != connectWait:
		return fault.New(fault.Conflict, "555 not managed by controller")
	case circuit == "0":
		s.state, s.circuit = circuitWait, ""
		f.choose(s)
	case strings.HasSuffix(s.target, ":0") && c.maker == "us" && !c.general:
		panic("tor aborts: a look-up on a controller's circuit")
	case !c.built:
		return fault.New(fault.Unavailable, "551 non-open circuit")
	default:
		f.put(s, c)
	}
	return nil
}

func (f *fake) CloseStream(ctx context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.note(ctx, "close %s", id); err != nil {
		return err
	}
	if f.streams[id] == nil {
		return fault.New(fault.NotFound, "552 unknown")
	}
	if f.closing != nil {
		f.closing(f.streams[id])
	}
	f.closed[id] = true
	f.end(id)
	return nil
}

func (f *fake) CloseCircuit(ctx context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.note(ctx, "closecircuit %s", id); err != nil {
		return err
	}
	if f.circuits[id] == nil {
		return fault.New(fault.NotFound, "552 unknown")
	}
	f.endCircuit(id, "CLOSED")
	return nil
}

func (f *fake) AddressMappings(ctx context.Context) (out []torctl.Mapping, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for from, to := range f.virtual {
		out = append(out, torctl.Mapping{From: from, To: to})
	}
	return out, f.note(ctx, "mappings")
}

func (f *fake) OpenCircuit(ctx context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.note(ctx, "open %s", id); err != nil {
		return err
	}
	c := f.circuits[id]
	if c == nil {
		return fault.New(fault.NotFound, "552 unknown")
	}
	c.general = true
	return nil
}

func (f *fake) ExtendCircuit(ctx context.Context, path []string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.note(ctx, "extend %s", path[len(path)-1][:1]); err != nil {
		return "", err
	}
	if f.unwilling > 0 {
		f.unwilling--
		return "", fault.New(fault.NotFound, "552 No descriptor")
	}
	c := &fakeCircuit{id: f.id(), exit: path[len(path)-1], maker: "us", path: slices.Clone(path)}
	f.circuits[c.id] = c
	f.say("CIRC %s LAUNCHED PURPOSE=GENERAL", c.id)
	f.say("CIRC %s EXTENDED %s PURPOSE=GENERAL", c.id, word(path[:len(path)-1]))
	wait, works := f.build(c.exit)
	f.after(wait, func() {
		switch {
		case f.circuits[c.id] != c:
		case works:
			c.built = true
			f.say("CIRC %s BUILT %s PURPOSE=GENERAL", c.id, word(path))
		default:
			f.endCircuit(c.id, "FAILED")
		}
	})
	return c.id, nil
}
