//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/lab"
)

// logsFollower is a vpnctl that stays and prints lines.
type logsFollower struct {
	args []string
	end  func() // interrupts it and waits

	mu   sync.Mutex
	got  []logs.Record
	came []time.Time
	errs strings.Builder
}

// follows starts vpnctl with -f, beginning with so many lines, and keeps what it
// prints.
func (w *logsWorld) follows(limit int, args ...string) *logsFollower {
	w.t.Helper()
	cmd := w.Vpnctl(context.Background(), append(args, "-f", "-n", strconv.Itoa(limit), "-o", "jsonl")...)
	r, out, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	f := &logsFollower{args: args}
	cmd.Stdout, cmd.Stderr = out, writerFunc(func(p []byte) (int, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.errs.Write(p)
	})
	err = cmd.Start()
	_ = out.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		d := json.NewDecoder(r)
		for {
			var rec logs.Record
			if d.Decode(&rec) != nil {
				return
			}
			f.mu.Lock()
			f.got, f.came = append(f.got, rec), append(f.came, time.Now())
			f.mu.Unlock()
		}
	})
	f.end = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(unix.SIGINT)
		_ = cmd.Wait() // interrupted, as it should be
		wg.Wait()
		_ = r.Close()
	})
	w.t.Cleanup(f.end)
	return f
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// find gives the first line that was printed and is wanted, and when it came.
func (f *logsFollower) find(wanted func(*logs.Record) bool) (*logs.Record, time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.got {
		if wanted(&f.got[i]) {
			return &f.got[i], f.came[i]
		}
	}
	return nil, time.Time{}
}

// agrees waits until the follower has printed just what the same command
// without -f finds, each line once.
func (f *logsFollower) agrees(w *logsWorld) {
	w.t.Helper()
	// What is found now is the least that has to come; more may come meanwhile.
	want := w.vpnctl(0, append(f.args, "-n", "100000", "-o", "jsonl")...).records(w.t)
	missing := func() []logs.Record {
		f.mu.Lock()
		defer f.mu.Unlock()
		have := map[string]bool{}
		for _, r := range f.got {
			have[r.ID] = true
		}
		var out []logs.Record
		for _, r := range want {
			if !have[r.ID] {
				out = append(out, r)
			}
		}
		return out
	}
	for deadline := time.Now().Add(15 * time.Second); len(missing()) > 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	for _, r := range missing() {
		w.t.Errorf("vpnctl %s -f missed %s %s %s %s of %s", strings.Join(f.args, " "), r.Time.Format(time.RFC3339), r.Service, r.Event, r.Message, r.User)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	times := map[string]int{}
	repeated := 0
	for _, r := range f.got {
		if times[r.ID]++; times[r.ID] == 2 {
			if repeated++; repeated <= 5 {
				w.t.Errorf("vpnctl %s -f repeated %s %s %s %s", strings.Join(f.args, " "), r.Time.Format(time.RFC3339), r.Service, r.Event, r.Message)
			}
		}
	}
	if repeated > 0 {
		w.t.Errorf("vpnctl %s -f repeated %d lines; it said: %s", strings.Join(f.args, " "), repeated, f.errs.String())
	}
}

func TestLogsFollow(t *testing.T) {
	w := newLogsWorld(t, 2, nil, "/var/log/vpnd")
	w.createUser("alice")
	w.createUser("bob")
	all := map[string]*logsFollower{
		"logs":         w.follows(1000, "logs", "user=alice"),
		"user logs":    w.follows(1000, "user", "logs", "alice"),
		"service logs": w.follows(1000, "service", "logs", "auth"),
	}
	eventually(t, 10*time.Second, func() error {
		if n := w.logsStatus().Followers; n != len(all) {
			return fmt.Errorf("%d followers, want %d", n, len(all))
		}
		return nil
	})
	w.connect(lab.Client(2), "bob", "phone")
	began := time.Now()
	w.connect(lab.Client(1), "alice", "laptop")
	for name, f := range all {
		eventually(t, 10*time.Second, func() error {
			r, came := f.find(func(r *logs.Record) bool { return r.User == "alice" && r.Service == "auth" && r.Time.After(began) })
			if r == nil {
				return fmt.Errorf("%s -f does not show that alice signed in", name)
			}
			t.Logf("%s -f: %s %s %s after it was written", name, r.Service, r.Event, came.Sub(r.Time).Round(time.Millisecond))
			return nil
		})
	}
	session := ""
	eventually(t, 10*time.Second, func() error {
		r, _ := all["logs"].find(func(r *logs.Record) bool { return r.Session != "" })
		if r == nil {
			return fmt.Errorf("logs -f shows no line of alice's session")
		}
		session = r.Session
		return nil
	})
	all["session logs"] = w.follows(1000, "session", "logs", session)

	day := 0
	activity := func() {
		t.Helper()
		w.run(0, "", lab.Client(1), "vpn", "down")
		w.run(0, "", lab.Client(1), "vpn", "up")
		day++
		now := time.Now().UTC()
		w.write(appLogs+"/shop.log", fmt.Sprintf(`{"ts":%q,"user":"alice","event":"bought","n":%d}`+"\n", now.Format(time.RFC3339Nano), day)+
			fmt.Sprintf(`{"ts":%q,"user":"bob","event":"bought","n":%d}`+"\n", now.Format(time.RFC3339Nano), day))
	}
	odd := func(by time.Duration) { // a line whose clock is wrong, the last that followers see
		t.Helper()
		w.write(appLogs+"/shop.log", fmt.Sprintf(`{"ts":%q,"user":"alice","service":"auth","session":%q,"event":"odd","by":%q}`+"\n",
			time.Now().UTC().Add(by).Format(time.RFC3339Nano), session, by))
		eventually(t, 10*time.Second, func() error {
			for name, f := range all {
				if r, _ := f.find(func(r *logs.Record) bool { return strings.Contains(string(r.Fields), by.String()) }); r == nil {
					return fmt.Errorf("%s -f does not show the line whose clock is off by %s", name, by)
				}
			}
			return nil
		})
	}
	agree := func(when string) {
		t.Helper()
		t.Run(when, func(t *testing.T) {
			for _, f := range all {
				f.agrees(w.in(t))
			}
		})
	}
	restart := func() { t.Helper(); w.vpnctl(0, "service", "restart", "logs") }
	kill := func(name string) {
		t.Helper()
		if err := unix.Kill(w.service(name).PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}

	activity()
	agree("undisturbed")
	restart()
	activity()
	agree("after a restart")
	kill("logs")
	activity()
	w.eventuallyReady("logs")
	agree("after a kill")
	kill("control")
	activity()
	w.eventuallyReady("control")
	agree("after a kill of control")
	odd(-26 * time.Hour)
	restart()
	activity()
	agree("after a line of yesterday and a restart")
	odd(20 * time.Hour)
	kill("logs")
	activity()
	w.eventuallyReady("logs")
	agree("after a line of tomorrow and a kill")

	for name, f := range all {
		f.end()
		f.mu.Lock()
		for _, r := range f.got {
			if name != "service logs" && name != "session logs" && r.User != "alice" || name == "service logs" && r.Service != "auth" || name == "session logs" && r.Session != session {
				t.Errorf("%s -f shows a line of others: %+v", name, r)
			}
		}
		t.Logf("%s -f: %d lines; it said: %q", name, len(f.got), f.errs.String())
		f.mu.Unlock()
	}
	eventually(t, 10*time.Second, func() error {
		if n := w.logsStatus().Followers; n != 0 {
			return fmt.Errorf("%d followers are still counted", n)
		}
		return nil
	})
}

// TestLogsFollowByPeople runs the follower as people do, without -o, into a
// pipe: a line at a time, at once.
func TestLogsFollowByPeople(t *testing.T) {
	w := newLogsWorld(t, 0, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := w.Vpnctl(ctx, "logs", "-f", "user=alice")
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	lines := make(chan string)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				lines <- string(buf[:n])
			}
			if err != nil {
				close(lines)
				return
			}
		}
	}()
	eventually(t, 10*time.Second, func() error {
		if w.logsStatus().Followers != 1 {
			return io.ErrNoProgress
		}
		return nil
	})
	began := time.Now()
	w.write(appLogs+"/a.log", `{"user":"bob","message":"not this"}`+"\n"+`{"user":"alice","message":"signed \u001b[31min"}`+"\n")
	select {
	case l := <-lines:
		if !strings.Contains(l, "alice") || strings.Contains(l, "bob") || strings.Contains(l, "\x1b") {
			t.Errorf("printed %q", l)
		}
		t.Logf("printed after %s", time.Since(began).Round(time.Millisecond))
	case <-time.After(10 * time.Second):
		t.Error("nothing is printed")
	}
	cancel()
	_ = cmd.Wait() // killed
	for range lines {
	}
	_ = r.Close()
}
