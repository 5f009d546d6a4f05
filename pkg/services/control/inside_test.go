//go:build linux

package control

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

func TestSlowReaderLosesTheOldestAndIsTold(t *testing.T) {
	for _, tc := range []struct {
		name         string
		burst        int
		kind         string
		missed, seen uint64
	}{
		{"within its patience", patience / 2, "", 0, patience / 2},
		{"beyond its patience", patience + 500, "", 501, patience},
		{"beyond the memory", remembered + 700, "", remembered + 701 - patience, patience},
		{"filtered events do not count", patience + 500, "odd", 0, (patience + 500) / 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHub("control")
			publish := func(n int) {
				for range n {
					kind := "even.said"
					if (h.own+1)%2 == 1 {
						kind = "odd.said"
					}
					h.publish(events.Event{Type: kind})
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			blocked, released := make(chan struct{}), make(chan struct{})
			got := make(chan events.Event, 2*remembered)
			ended := make(chan error, 1)
			enough := errors.New("enough")
			first := true
			go func() {
				ended <- h.stream(ctx, &api.EventsRequest{Follow: true, Type: tc.kind}, func(e events.Event) error {
					if first {
						first = false
						close(blocked)
						<-released
						return nil
					}
					got <- e
					if e.Message == "last" {
						return enough
					}
					return nil
				})
			}()
			// The reader is there when the first event reaches it.
			for waiting := true; waiting; {
				publish(1)
				if tc.kind != "" {
					publish(1)
				}
				select {
				case <-blocked:
					waiting = false
				default:
				}
			}
			early := h.own // those of them that the reader has not seen yet lag like the burst
			publish(tc.burst)
			h.publish(events.Event{Type: "odd.said", Message: "last"})
			close(released)
			if err := <-ended; !errors.Is(err, enough) {
				t.Fatal(err)
			}
			close(got)
			var missed, seen uint64
			for e := range got {
				seen++
				missed += e.Missed
			}
			if missed < tc.missed || missed > tc.missed+early {
				t.Errorf("told of %d missed events, want %d to %d", missed, tc.missed, tc.missed+early)
			}
			if seen < min(tc.seen, patience) || seen > patience+early {
				t.Errorf("got %d events, want %d", seen, tc.seen)
			}
		})
	}
}

func TestOriginSaysWhatProcTells(t *testing.T) {
	if got := origin(int32(os.Getpid()), uint32(os.Getuid())); !strings.HasPrefix(got, "control.test") {
		t.Errorf("own origin %q", got)
	}
	if got := origin(0, 0); got != "" {
		t.Errorf("no process: %q", got)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestStays$", "-test.timeout=60s")
	cmd.Env = []string{"SSH_CONNECTION=192.0.2.7 40000 198.51.100.1 22", "CONTROL_TEST_STAY=1"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventuallySays(t, ", ssh from 192.0.2.7", func() string { return origin(int32(cmd.Process.Pid), 0) })
}

// eventuallySays waits for a process that has just been started to have its
// own environment.
func eventuallySays(t *testing.T, want string, say func() string) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got = say(); strings.HasSuffix(got, want) {
			return
		}
	}
	t.Errorf("got %q, want …%q", got, want)
}

// TestStays is the process that TestOriginSaysWhatProcTells looks at.
func TestStays(t *testing.T) {
	if os.Getenv("CONTROL_TEST_STAY") != "" {
		select {}
	}
}

func TestTerminalSurvivesAnyCommandName(t *testing.T) {
	for stat, want := range map[string]string{
		"7 (vpnctl) S 1 2 3 34819 9 0":       "pts/3",
		"7 (a) S 1 1 1 1) S 1 2 3 34816 9 0": "pts/0",
		"7 (x) S 1 2 3 0 -1 0":               "",
		"7 (x) S 1 2 3 1025 -1 0":            "tty1",
		"7 (x) S 1 2 3 1088 -1 0":            "ttyS0",
		"":                                   "", ")": "", "7 (x) S": "",
	} {
		if got := terminal([]byte(stat)); got != want {
			t.Errorf("%q: got %q, want %q", stat, got, want)
		}
	}
}

func FuzzTerminal(f *testing.F) {
	f.Add([]byte("7 (vpnctl) S 1 2 3 34819 9 0"))
	f.Fuzz(func(_ *testing.T, stat []byte) { terminal(stat) })
}

func TestTextsFromOutsideArePlainAndShort(t *testing.T) {
	for in, want := range map[string]string{
		"alice":                 "alice",
		"a\x1b[31mb\nc":         "a�[31mb�c",
		"a\u202eb":              "a�b",
		strings.Repeat("é", 20): strings.Repeat("é", 10) + "…",
	} {
		if got := plain(in, 21); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestTargetComesFromThePathOnly(t *testing.T) {
	type Ref struct {
		User string `path:"user"`
	}
	type req struct {
		Ref
		Name string `path:"device"`
		Q    string `query:"q"`
		Body struct {
			Password string `json:"password"`
		}
	}
	r := req{Ref: Ref{"alice"}, Name: "laptop", Q: "query"}
	r.Body.Password = "secret"
	if got := pathTarget(&r); got != "alice laptop" {
		t.Errorf("got %q", got)
	}
	if got := pathTarget(&struct{}{}); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestRefusedAttemptsAreWrittenDown(t *testing.T) {
	tr, err := openTrail(t.Context(), filepath.Join(t.TempDir(), "audit.db"), slog.New(slog.DiscardHandler), newHub("control"))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	ctx := rpc.WithCaller(t.Context(), rpc.Caller{Name: "eve", UID: 1000, PID: 1, Local: true, Access: rpc.View})
	refusal := fault.New(fault.Denied, "user.delete needs admin access")
	tr.refused(ctx, users.Delete.Info, refusal)
	tr.refused(ctx, users.ListUsers.Info, refusal) // looking is no change
	l, err := tr.list(t.Context(), &api.AuditRequest{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Items) != 1 || l.Items[0].Who != "eve" || l.Items[0].Op != "user.delete" || l.Items[0].Result != "denied" || l.Items[0].Message == "" {
		t.Errorf("trail %+v", l.Items)
	}
	batch, _, _, _ := tr.hub.after(0, func(e *events.Event) bool { return e.Type == "control.denied" })
	if len(batch) != 1 {
		t.Errorf("events %+v", batch)
	}
}
