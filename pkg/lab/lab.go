//go:build linux

// Package lab builds a whole world in network namespaces: a server machine,
// client machines and the internet between them, with targets that say whom
// they see. The end-to-end tests, `make demo` and `vpnctl lab` use it.
//
// A machine is a network namespace plus a mount namespace in which /run, /etc,
// /var/lib and /var/log are its own, so that programs use their default paths
// there and neither another machine nor the host sees what they change. The
// package owns the namespaces, the links, the targets, and every process that
// runs in a machine; it knows nothing of the programs it runs. Nothing of the
// host's own network or files is changed.
//
// A lab belongs to no process: its state is in Root, any process may Open it,
// and any may Close it, also after its maker was killed. A *Lab and what it
// hands out may be used from many goroutines.
package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/lab/netns"
)

// Options says what to build.
type Options struct {
	// ID names the lab: 1 to 12 lower case letters and digits. Empty means a
	// random one.
	ID string
	// Clients is how many client machines there are, 0 to MaxClients.
	Clients int
	// Dir is an existing directory on a disk under which the machines' own files
	// live until Close; not below /etc, /run, /var/lib or /var/log. Empty means in
	// memory, where fsync costs nothing.
	Dir string
	// TargetCommand starts the program that runs ServeTargets, as a process that
	// outlives this one; the lab's id is appended to it. Nil means goroutines of
	// this process, which end with it or with Close.
	TargetCommand []string
}

// Lab is an open lab.
type Lab struct {
	state    state
	machines map[string]*Machine

	mu      sync.Mutex
	closers map[any]func() // what this process holds inside the lab
	closed  bool
}

// New builds a lab and returns when its targets answer. On failure nothing of
// it is left.
func New(ctx context.Context, o Options) (*Lab, error) {
	st, err := newState(o)
	if err != nil {
		return nil, err
	}
	if err := st.create(); err != nil {
		return nil, err
	}
	l := open(st)
	if err := l.build(ctx, o); err != nil {
		// The cause may be that ctx is done; the way back must still be walked.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("build lab %s: %w", st.ID, err), l.Close(undo))
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context, o Options) error {
	if err := l.buildNetwork(ctx); err != nil {
		return err
	}
	for _, name := range l.Names() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.machines[name].buildMounts(); err != nil {
			return err
		}
	}
	if err := l.startTargets(ctx, o.TargetCommand); err != nil {
		return err
	}
	l.state.Ready = true
	return l.state.save()
}

// Open opens a lab that this or another process built.
func Open(id string) (*Lab, error) {
	st, err := loadState(id)
	if err != nil {
		return nil, err
	}
	if !st.Ready {
		return nil, fault.New(fault.Conflict, "lab %s is not complete", id).
			WithHint("if nobody is building it right now, remove it: vpnctl lab down %s", id)
	}
	return open(st), nil
}

func open(st state) *Lab {
	l := &Lab{state: st, machines: map[string]*Machine{}, closers: map[any]func(){}}
	for _, p := range plan(st.Clients) {
		l.machines[p.name] = &Machine{lab: l, plan: p}
	}
	return l
}

// ID is the lab's name.
func (l *Lab) ID() string { return l.state.ID }

// Names lists the machines: internet, server, client1, client2, …
func (l *Lab) Names() []string {
	var names []string
	for _, p := range plan(l.state.Clients) {
		names = append(names, p.name)
	}
	return names
}

// Machine is the machine of that name, nil when there is none.
func (l *Lab) Machine(name string) *Machine { return l.machines[name] }

// closeTimeout is how long Close of a lab that could not be built may take.
const closeTimeout = 10 * time.Second

// Close ends whatever runs in the lab and removes every trace of it. Closing a
// closed lab, or one that another process closed, is no error. The context bounds
// the wait for processes to end, so it must not be one that has ended, as
// t.Context() has in a cleanup.
func (l *Lab) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	held := slices.Collect(maps.Values(l.closers))
	l.closers = map[any]func(){}
	l.mu.Unlock()
	for _, release := range held {
		release()
	}
	if st, err := loadState(l.state.ID); err == nil && !st.Created.Equal(l.state.Created) {
		return nil // this lab is gone and another took the name
	}
	return Remove(ctx, l.state.ID)
}

// hold registers what has to be let go of before the lab can end, until drop
// is called with the same key.
func (l *Lab) hold(key any, release func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fault.New(fault.NotFound, "lab %s is closed", l.state.ID)
	}
	l.closers[key] = release
	return nil
}

func (l *Lab) drop(key any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.closers, key)
}

// Remove is Close for a lab that need not be complete or open: it ends its
// processes and removes its namespaces, mounts and files. A lab that does not
// exist is no error.
func Remove(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	files := ""
	if st, err := loadState(id); err == nil {
		files = st.Files
	}
	if err := killMembers(ctx, id); err != nil {
		return fmt.Errorf("end the processes of lab %s: %w", id, err)
	}
	names, err := namespacesOf(id)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := netns.Remove(name); err != nil {
			return err
		}
	}
	if files != "" {
		// Before the state that names it, so that a second try finds it again.
		// The overlays on it are mounted in the machines only, and those are gone.
		if err := os.RemoveAll(files); err != nil {
			return fmt.Errorf("remove the machines' files: %w", err)
		}
	}
	return removeState(id)
}

// Process is a process that runs in a machine.
type Process struct {
	PID     int      `json:"pid"`
	Machine string   `json:"machine"`
	Args    []string `json:"args"`
}

// Processes lists what runs in the machines now, whoever started it.
func (l *Lab) Processes() ([]Process, error) { return members(l.state.ID) }

// MachineInfo describes one machine.
type MachineInfo struct {
	Name      string       `json:"name"`
	Namespace string       `json:"namespace"` // as `ip netns` knows it
	Addresses []netip.Addr `json:"addresses"`
}

// Info describes a lab.
type Info struct {
	ID       string        `json:"id"`
	Created  time.Time     `json:"created"`
	Creator  int           `json:"creator"` // pid of the process that built it
	Ready    bool          `json:"ready"`   // false while it is built, or when its maker died before it was
	Machines []MachineInfo `json:"machines"`
}

// Info describes this lab.
func (l *Lab) Info() Info { return l.state.info() }

// List describes the labs of this machine, oldest first.
func List() ([]Info, error) {
	ids, err := listStates()
	if err != nil {
		return nil, err
	}
	var out []Info
	for _, id := range ids {
		st, err := loadState(id)
		if err != nil {
			st = state{ID: id} // its maker died very early, or it is going away right now
		}
		out = append(out, st.info())
	}
	slices.SortFunc(out, func(a, b Info) int { return a.Created.Compare(b.Created) })
	return out, nil
}
