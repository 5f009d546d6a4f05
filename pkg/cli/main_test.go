package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/cli"
	"vpnd/pkg/cli/fakevpnd"
)

func update() bool {
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

var _ = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vpnctl": func() { os.Exit(cli.Main(os.Args[1:])) }})
}

// serve runs a fake vpnd and gives its address.
func serve(t *testing.T, w *fakevpnd.World) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vpnctl") // short: socket paths have a limit
	if err != nil {
		t.Fatal(err)
	}
	stop, err := start(w, filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); _ = os.RemoveAll(dir) })
	return "unix://" + filepath.Join(dir, "s")
}

// start serves until stop is called.
func start(w *fakevpnd.World, path string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- w.Serve(ctx, path, func() { close(ready) }) }()
	select {
	case <-ready:
		return func() { cancel(); <-ended }, nil
	case err := <-ended:
		cancel()
		return nil, err
	}
}

// worlds are the fake vpnds of the scripts, by working directory.
type worlds struct {
	mu sync.Mutex
	m  map[string]*fakevpnd.World
}

func TestScripts(t *testing.T) {
	all := &worlds{m: map[string]*fakevpnd.World{}}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: update(), RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			w := fakevpnd.New()
			dir, err := os.MkdirTemp("", "vpnctl")
			if err != nil {
				return err
			}
			stop, err := start(w, filepath.Join(dir, "s"))
			if err != nil {
				return err
			}
			e.Defer(func() { stop(); _ = os.RemoveAll(dir) })
			e.Setenv("VPNCTL_HOST", "unix://"+filepath.Join(dir, "s"))
			all.mu.Lock()
			all.m[e.WorkDir] = w
			all.mu.Unlock()
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// exits N COMMAND… runs a command and wants its exit status.
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits N COMMAND…")
				}
				want, err := strconv.Atoi(args[0])
				if err != nil {
					ts.Fatalf("usage: exits N COMMAND…")
				}
				got := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					exit, ok := errors.AsType[*exec.ExitError](err)
					if !ok {
						ts.Fatalf("%v", err)
					}
					got = exit.ExitCode()
				}
				if got != want {
					ts.Fatalf("exit status %d, want %d\n[stdout]\n%s[stderr]\n%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
				}
			},
			// vpnd WORD… changes the fake vpnd.
			"vpnd": func(ts *testscript.TestScript, neg bool, args []string) {
				all.mu.Lock()
				w := all.m[ts.Getenv("WORK")]
				all.mu.Unlock()
				w.Do(func(w *fakevpnd.World) { changeWorld(ts, w, args) })
			},
		},
	})
}

func changeWorld(ts *testscript.TestScript, w *fakevpnd.World, args []string) {
	switch args[0] {
	case "broken":
		w.Services[0].State, w.Services[0].Reason = "failed", "exit status 1"
		w.Problems = []control.Problem{{What: "service auth is failed: exit status 1", Hint: "vpnctl service get auth"}}
	case "event":
		w.Events = append(w.Events, events.Event{ID: "evt_new", Time: fakevpnd.Now().Add(time.Hour), Service: "users", Type: args[1], User: args[2]})
	case "slow":
		w.Delay = 3 * time.Second
	case "password": // password USER WANT
		if got := w.Password[args[1]]; got != args[2] {
			ts.Fatalf("password of %s is %q, want %q", args[1], got, args[2])
		}
	case "tor": // tor PERCENT
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		w.Bootstrapped(tor.Bootstrap{Percent: n, Tag: "tag", Summary: "Loading"})
	case "empty":
		w.Users, w.Sessions, w.Devices = nil, nil, nil
	default:
		ts.Fatalf("unknown change %q", args[0])
	}
}

// golden compares with a file, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata/golden", name)
	if update() {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run with -update)", err)
	}
	if !bytes.Equal(want, []byte(got)) {
		t.Errorf("%s differs:\n--- want\n%s\n--- got\n%s", path, want, got)
	}
}
