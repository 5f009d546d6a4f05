package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"vpnd/client/agent"
	"vpnd/client/dns"
	"vpnd/client/gate"
	"vpnd/client/profile"
	"vpnd/client/tunnel"
	"vpnd/pkg/build"
	"vpnd/pkg/fault"
)

// newAgent is the process behind the tunnel. `vpn up` starts it.
func newAgent(f *factory) *cobra.Command {
	return &cobra.Command{
		Use:    "agent",
		Short:  "Keep the tunnel (started by 'vpn up')",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: run(func(ctx context.Context, _ []string) error {
			// Started from a terminal that closes, and logging to a file.
			signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
			ready := readyPipe()
			err := runAgent(ctx, ready)
			ready.fail(err)
			return err
		}),
	}
}

// pipe is descriptor 3 of an agent that `vpn up` has started.
type pipe struct{ file *os.File }

func readyPipe() *pipe {
	var st syscall.Stat_t
	if syscall.Fstat(3, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return &pipe{} // started by hand
	}
	syscall.CloseOnExec(3)
	return &pipe{os.NewFile(3, "ready")}
}

func (p *pipe) ready() {
	if p.file != nil {
		_ = p.file.Close()
		p.file = nil
	}
}

func (p *pipe) fail(err error) {
	if p.file == nil || err == nil {
		return
	}
	f := fault.From(err)
	_ = json.NewEncoder(p.file).Encode(startReport{f.Code, f.Reason, err.Error(), f.Hint}) // the parent may be gone
	p.ready()
}

func runAgent(ctx context.Context, ready *pipe) error {
	dirs, err := findDirs()
	if err != nil {
		return err
	}
	unlock, err := onlyAgent(ctx, dirs)
	if err != nil {
		return err
	}
	defer unlock()
	out, err := openLog(filepath.Join(dirs.state, logFile))
	if err != nil {
		return err
	}
	defer out.Close()
	log := slog.New(slog.NewJSONHandler(out, nil))

	loc, err := profile.Locate()
	if err != nil {
		return err
	}
	store := profile.New(loc)
	a, err := assemble(store, dirs, log)
	if err != nil {
		return err
	}
	l, err := listen(dirs.socket())
	if err != nil {
		return err
	}
	defer os.Remove(dirs.socket())
	log.Info("agent started", "version", build.Get().Version, "pid", os.Getpid(), "owner", loc.UID)

	serveCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	served := make(chan error, 1)
	go func() { served <- agent.NewServer(a, uint32(loc.UID), log).Serve(serveCtx, l) }()
	ready.ready()
	err = a.Run(ctx)
	stop()
	err = errors.Join(err, <-served)
	log.Info("agent ended", "err", err)
	return err
}

// onlyAgent takes the lock that makes this the machine's agent. One that is just
// ending is waited for.
func onlyAgent(ctx context.Context, d dirs) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		unlock, ok, err := d.lock()
		if err != nil || ok {
			return unlock, err
		}
		if conn, err := findAgent(ctx); err == nil && conn != nil {
			return nil, fault.New(fault.Conflict, "an agent is running already").WithReason(reasonRunning)
		}
		select {
		case <-ctx.Done():
			return nil, fault.New(fault.Timeout, "another vpn command is changing the machine").WithHint("try again when it has ended")
		case <-time.After(agentGone):
		}
	}
}

// assemble makes the agent of what the profile says.
func assemble(store *profile.Store, dirs dirs, log *slog.Logger) (*agent.Agent, error) {
	p, err := store.Load()
	if err != nil {
		return nil, err
	}
	pin, err := gate.ParsePin(p.Server.Pin)
	if err != nil || p.Server.Host == "" {
		return nil, fault.New(fault.Unauthenticated, "nobody is signed in").WithHint("sign in first: vpn login URL")
	}
	t, err := tunnel.New(dirs.state, dns.New(dns.DefaultPaths()))
	if err != nil {
		return nil, err
	}
	names := gate.NewResolver(tunnel.Mark, p.Addresses)
	names.Use(t.Nameservers())
	addr := gate.Address{Host: p.Server.Host, Port: p.Server.Port}
	return agent.New(agent.Deps{
		Store: store, Server: gate.NewClient(addr, pin, names, tunnel.Mark), Machine: t, Names: names,
		Log: log, ServerName: addr.HostPort(),
	}), nil
}

// listen opens the agent's socket. Who may call is asked of every caller, so that
// the owner reaches an agent that root runs.
func listen(path string) (net.Listener, error) {
	// Of an agent that died: the lock is ours.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for vpn commands: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for vpn commands: %w", err), l.Close())
	}
	return l, nil
}
