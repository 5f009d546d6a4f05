//go:build linux

package lanes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/config"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
	"vpnd/pkg/services/lanes"
)

// playLanes is the service as a process of its own, inside the network
// namespace that it was started in; a role follows as JSON.
const playLanes = "play-lanes"

// role is what the service is told.
type role struct {
	Config   config.Config
	StateDir string
	RunDir   string
	Socket   string
	Compare  time.Duration
}

// callerFile says whom the next connection comes from.
const callerFile = "caller"

// compareEvery is short, so that tests see a stranger's change repaired.
const compareEvery = 300 * time.Millisecond

// The test binary plays the other processes too.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	var err error
	switch os.Args[1] {
	case lanes.DaemonCommand:
		err = lanes.RunDaemon(context.Background(), os.Args[2:])
	case playLanes:
		err = serve(os.Args[2])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(text string) error {
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the test, should it forget us
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	l, err := net.Listen("unix", r.Socket)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(r.RunDir, "lanes.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	env := &service.Env{
		Name: "lanes", Config: r.Config, StateDir: r.StateDir, RunDir: r.RunDir,
		Log: slog.New(slog.NewJSONHandler(log, nil)), Events: service.NewEvents("lanes"),
	}
	def := service.Definition{Name: "lanes", Build: func(_ context.Context, env *service.Env) (service.Instance, error) {
		cfg := lanes.ConfigFrom(r.Config, r.StateDir, r.RunDir, "/proc/self/exe")
		cfg.CompareEvery = r.Compare
		publish := func(e events.Event) { env.Log.Info("event", "type", e.Type, "message", e.Message) }
		all, err := lanes.New(cfg, env.Log, publish)
		if err != nil {
			return service.Instance{}, err
		}
		lanes.Register(env.Server, all)
		return service.Instance{Run: all.Run, Ready: all.Ready}, nil
	}}
	admit := func(rpc.PeerCred) (rpc.Caller, error) {
		name, err := os.ReadFile(filepath.Join(r.RunDir, callerFile))
		return rpc.Caller{Name: string(name), Access: rpc.Internal}, err
	}
	if err := service.Serve(ctx, def, env, admit, l); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
