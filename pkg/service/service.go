// Package service is what every service process does around its own work:
// take over the inherited sockets, log, answer heartbeats, offer the event
// feed, serve operations to the siblings that may call, drain on SIGTERM.
//
// It owns the process; it leaves what the service is about to its Build
// function, and starting and stopping processes to the supervisor. Privileges
// were dropped before the process was started. An Env may be used concurrently
// once Build has returned.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/build"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/sandbox"
)

// Env is what a service has to work with.
type Env struct {
	Name     string
	Config   config.Config
	StateDir string // own, 0700
	RunDir   string // own, for sockets the service makes itself
	Log      *slog.Logger
	Events   *Events

	// Server serves the siblings on the inherited Unix socket. Build registers
	// the service's operations on it.
	Server *rpc.Server

	// Extra are inherited listeners beyond the Unix socket, in the order they
	// were declared.
	Extra []net.Listener

	// Siblings are the services that this one may call, for Sibling.
	Siblings map[string]Sibling

	mu    sync.Mutex // guards conns
	conns map[string]*rpc.Conn
}

// Sibling gives the connection to another service. Asking for one that the
// service table does not allow is a programming error and fails every call.
func (e *Env) Sibling(name string) *rpc.Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c, ok := e.conns[name]; ok {
		return c
	}
	var o rpc.Options
	sibling, allowed := e.Siblings[name]
	if !allowed {
		o.Dial = func(context.Context) (net.Conn, error) {
			return nil, fault.New(fault.Denied, "%s may not call %s", e.Name, name)
		}
	}
	c := rpc.DialUnix(name, sibling.Socket, o)
	if e.conns == nil {
		e.conns = map[string]*rpc.Conn{}
	}
	e.conns[name] = c
	return c
}

// Instance is a built service.
type Instance struct {
	// Run does the background work until ctx ends. Nil when there is none.
	Run func(ctx context.Context) error

	// Ready tells why the service cannot do its work; nil means it always can.
	Ready func() error
}

// Definition is how a service is made.
type Definition struct {
	Name string

	// Configure changes how the Unix socket treats callers; control admits
	// people. Nil admits the siblings of the service table.
	Configure func(*Env, *rpc.ServerConfig) error

	// Build makes the service: opens its state and registers its operations.
	Build func(context.Context, *Env) (Instance, error)
}

// Main runs a service process and gives its exit status. It is called by the
// supervisor's child, never by people.
func Main(def Definition) int {
	err := run(def)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", def.Name, err)
	if h := fault.From(err).Hint; h != "" {
		fmt.Fprintf(os.Stderr, "%s: %s\n", def.Name, h)
	}
	return 1
}

func run(def Definition) error {
	// Services are many and small: collect early, hold little.
	debug.SetGCPercent(50)

	a, err := readAssignment()
	if err != nil {
		return err
	}
	if a.Service != def.Name {
		return fmt.Errorf("assigned to %q", a.Service)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE) // nobody listening on stdout is no reason to end

	if err := sandbox.Apply(a.Sandbox); err != nil {
		return err
	}
	logger, closeLog := newLogger(a)
	defer closeLog()
	listeners, err := inherit(a.Listeners)
	if err != nil {
		return err
	}
	env := &Env{
		Name: a.Service, Config: a.Config, StateDir: a.StateDir, RunDir: a.RunDir,
		Log: logger, Events: NewEvents(a.Service), Extra: listeners[1:], Siblings: a.Siblings,
	}
	return Serve(ctx, def, env, identify(a.Callers), listeners[0])
}

// Serve builds the service and runs it on the Unix listener until ctx ends.
// Main uses it; so do tests that run a service in their own process.
func Serve(ctx context.Context, def Definition, env *Env, admit func(rpc.PeerCred) (rpc.Caller, error), l net.Listener) error {
	var inst Instance // made before the first heartbeat: until then, whoever calls waits in the socket's queue
	cfg := rpc.ServerConfig{
		Name: def.Name, Version: build.Get().Version, Log: env.Log, Identify: admit,
		Ready: func() error {
			if inst.Ready == nil {
				return nil
			}
			return inst.Ready()
		},
	}
	if def.Configure != nil {
		if err := def.Configure(env, &cfg); err != nil {
			return err
		}
	}
	env.Server = rpc.NewServer(cfg)
	rpc.HandleStream(env.Server, events.Feed, env.Events.Feed)

	inst, err := def.Build(ctx, env)
	if err != nil {
		return err
	}
	env.Log.Info("started", "version", build.Get().Version, "pid", os.Getpid())

	// The background work outlives the server, so that calls that are still
	// being answered while draining find everything running.
	workCtx, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	serveCtx, stopServing := context.WithCancel(ctx)
	defer stopServing()
	work := make(chan error, 1)
	go func() {
		if inst.Run == nil {
			<-workCtx.Done()
			work <- nil
			return
		}
		err := inst.Run(workCtx)
		stopServing()
		work <- err
	}()
	err = env.Server.Serve(serveCtx, l)
	stopWork()
	select {
	case werr := <-work:
		if err == nil && !errors.Is(werr, context.Canceled) {
			err = werr
		}
	case <-time.After(10 * time.Second):
		err = errors.Join(err, errors.New("background work did not end within 10 s"))
	}
	env.Log.Info("stopped")
	return err
}

// identify admits exactly the siblings that the service table names.
func identify(callers map[string]uint32) func(rpc.PeerCred) (rpc.Caller, error) {
	byUID := make(map[uint32]string, len(callers))
	for name, uid := range callers {
		byUID[uid] = name
	}
	return func(p rpc.PeerCred) (rpc.Caller, error) {
		name, ok := byUID[p.UID]
		if !ok {
			return rpc.Caller{}, fault.New(fault.Denied, "uid %d may not call this service", p.UID).
				WithHint("use control.sock")
		}
		return rpc.Caller{Name: name, Access: rpc.Internal}, nil
	}
}

// inherit takes over the sockets that the supervisor opened.
func inherit(n int) ([]net.Listener, error) {
	if n < 1 {
		return nil, errors.New("no socket was inherited")
	}
	out := make([]net.Listener, n)
	for i := range out {
		f := os.NewFile(uintptr(3+i), "listener")
		l, err := net.FileListener(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("inherited socket %d: %w", i, err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the file is the supervisor's
		}
		out[i] = l
	}
	return out, nil
}
