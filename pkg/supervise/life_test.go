package supervise_test

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/supervise"
)

// restartBound is far over what a restart takes (about 20 ms) and far under
// any back-off that would be a mistake here.
const restartBound = 3 * time.Second

func TestKilledServiceIsBackAndCallersOnlyWait(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "slow") // 300 ms until it accepts
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	before := w.untilState("a", supervise.Ready)
	start := time.Now()
	kill(t, before.PID, syscall.SIGKILL)
	eventually(t, "the process is gone", func() bool { return gone(before.PID) })
	me := askSelf(t, s.SocketPath) // connects while nobody accepts
	took := time.Since(start)
	if me.PID == before.PID || took > restartBound {
		t.Errorf("answered by %d (was %d) after %v", me.PID, before.PID, took)
	}
	after := w.untilState("a", supervise.Ready)
	if after.Restarts != 1 || after.LastExit == nil || after.LastExit.Signal != "SIGKILL" || after.LastExit.Words != "killed by SIGKILL" {
		t.Errorf("status after the kill: %+v, %+v", after, after.LastExit)
	}
	t.Logf("back after %v, of which the service itself takes 300ms", took)
}

func TestManyKillsInARowBackOffAndAreForgotten(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "good")
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	for i := range 3 {
		st := w.until("a", "is ready again", func(st supervise.Status) bool { return st.State == supervise.Ready && st.Restarts == i })
		start := time.Now()
		kill(t, st.PID, syscall.SIGKILL)
		eventually(t, "the process is gone", func() bool { return gone(st.PID) })
		if _, err := call(s.SocketPath, `{"action":"ping"}`); err != nil {
			t.Errorf("kill %d: %v", i, err)
		}
		t.Logf("kill %d: answers after %v", i, time.Since(start))
	}
}

func TestHungServiceIsKilledAfterThreeMissedPongs(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "good")
	s.Heartbeat.Interval, s.Heartbeat.Timeout, s.Stop.Timeout = ms(20), ms(150), ms(100)
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	before := w.untilState("a", supervise.Ready)
	events, cancel := w.Subscribe()
	defer cancel()
	kill(t, before.PID, syscall.SIGSTOP)
	after := w.until("a", "has a new process", func(st supervise.Status) bool { return st.State == supervise.Ready && st.PID != before.PID })
	if !gone(before.PID) {
		t.Error("the hung process still exists")
	}
	if after.LastExit == nil || after.MissedPongs != 0 {
		t.Errorf("status: %+v", after)
	}
	seen := map[supervise.State]string{}
	for len(events) > 0 {
		e := <-events
		seen[e.State] = e.Reason
	}
	if !strings.Contains(seen[supervise.Stopping], "missed 3 pongs in a row: no answer to a ping within 150ms") {
		t.Errorf("events: %v", seen)
	}
	if _, ok := seen[supervise.Unhealthy]; !ok {
		t.Errorf("no unhealthy event: %v", seen)
	}
}

func TestSilentServiceIsRestartedAfterItsGrace(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "silent")
	s.Heartbeat.Timeout, s.Heartbeat.Grace = ms(60), ms(200)
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	st := w.until("a", "is restarted", func(st supervise.Status) bool { return st.Restarts >= 1 })
	w.until("a", "says why", func(st supervise.Status) bool {
		return strings.Contains(st.Reason, "did not answer within 200ms of its start")
	})
	if st.LastExit == nil {
		t.Error("no exit recorded")
	}
}

func TestUnreadyServiceSaysWhyAndBecomesReady(t *testing.T) {
	dir := tempDir(t)
	w := run(t, dir, map[string]supervise.Spec{"a": service(dir, "a", "unready")})
	st := w.untilState("a", supervise.Unready)
	if st.Reason != "still reading" || st.PongLatency == 0 {
		t.Errorf("status: %+v", st)
	}
	w.untilState("a", supervise.Ready)
}

func TestServiceThatDiesAgainAndAgainFailsAndIsTriedRarely(t *testing.T) {
	dir := tempDir(t)
	good := service(dir, "good", "good")
	w := run(t, dir, map[string]supervise.Spec{"dies": service(dir, "dies", "die"), "good": good})
	st := w.untilState("dies", supervise.Failed)
	if st.LastExit == nil || st.LastExit.Code != 3 || st.NextRetry == nil || time.Until(*st.NextRetry) > time.Second {
		t.Errorf("status: %+v, exit %+v", st, st.LastExit)
	}
	if st.Restarts != 3 { // FailAfter 4 deaths
		t.Errorf("%d restarts", st.Restarts)
	}
	if want := "exited with status 3: cannot go on: no such thing"; st.Reason != want {
		t.Errorf("reason %q, want %q", st.Reason, want)
	}
	if n := len(st.StderrTail); n != 20 || st.StderrTail[n-1] != "cannot go on: no such thing" || st.StderrTail[0] != "line 11" {
		t.Errorf("tail: %q", st.StderrTail)
	}
	w.until("dies", "is tried again", func(s supervise.Status) bool { return s.Restarts > 3 })
	if got := w.get("good"); got.State != supervise.Ready || got.Restarts != 0 {
		t.Errorf("the other service: %+v", got)
	}
	err := w.Start(w.ctx(), "dies")
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "cannot go on") {
		t.Errorf("Start: %v", err)
	}
}

func TestWhatCannotBeStartedSaysWhyInWords(t *testing.T) {
	dir := tempDir(t)
	file := dir + "/not-a-program"
	if err := os.WriteFile(file, []byte("\x00\x01"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/secret", []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := func(path string) supervise.Spec { return supervise.Spec{Cmd: []string{path}} }
	nobody := cmd(program)
	nobody.User = "no-such-user-here"
	group := cmd(program)
	group.Groups = []string{"no-such-group-here"}
	cwd := cmd(program)
	cwd.Cwd = dir + "/nowhere"
	denied := cmd(dir + "/secret")
	denied.User = "12345"
	taken := service(dir, "taken", "good")
	taken.SocketPath = file
	open := service(dir, "open", "good")
	open.SocketPath = "/tmp/vpnd-test-open.sock"
	services := map[string]supervise.Spec{
		"missing": cmd(dir + "/no-such-program"), "unfound": cmd("no-such-program-here"), "broken": cmd(file),
		"nobody": nobody, "group": group, "cwd": cwd, "denied": denied, "taken": taken, "open": open,
	}
	w := run(t, dir, services)
	for name, want := range map[string]string{
		"missing": "no-such-program does not exist",
		"unfound": "no program is called no-such-program-here in /usr/local/sbin:",
		"broken":  "is not a program",
		"nobody":  `no user is called "no-such-user-here"`,
		"group":   `no group is called "no-such-group-here"`,
		"cwd":     "nowhere does not exist",
		"denied":  "uid 12345 may not execute",
		"taken":   "the path is taken by something that is not a socket",
		"open":    "directory /tmp can be written by others",
	} {
		st := w.untilState(name, supervise.Failed)
		if !strings.Contains(st.Reason, want) || st.NextRetry == nil || st.PID != 0 {
			t.Errorf("%s: %+v, want reason %q", name, st, want)
		}
	}
}

func TestStopRefusesCallersAndStartServesThem(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "good")
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	pid := w.untilState("a", supervise.Ready).PID
	if err := w.Stop(w.ctx(), "a"); err != nil {
		t.Fatal(err)
	}
	if st := w.get("a"); st.State != supervise.Stopped || st.PID != 0 || !gone(pid) {
		t.Errorf("after Stop: %+v", st)
	}
	if _, err := call(s.SocketPath, "x"); err == nil {
		t.Error("a call to a stopped service was answered")
	}
	for range 2 { // the second finds it running
		if err := w.Start(w.ctx(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	if st := w.get("a"); st.State != supervise.Ready || st.Restarts != 1 {
		t.Errorf("after Start: %+v", st)
	}
	if _, err := w.Get("b"); !errors.Is(err, fault.NotFound) {
		t.Errorf("Get of an unknown service: %v", err)
	}
	if err := w.Restart(w.ctx(), "b"); !errors.Is(err, fault.NotFound) {
		t.Errorf("Restart of an unknown service: %v", err)
	}
}

func TestConcurrentRequestsDoNotRace(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "good")
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	w.untilState("a", supervise.Ready)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			var err error
			switch i % 6 {
			case 0:
				err = w.Stop(w.ctx(), "a")
			case 1:
				err = w.Start(w.ctx(), "a")
			default:
				err = w.Restart(w.ctx(), "a")
			}
			if err != nil && fault.ReasonOf(err) != "superseded" {
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if err := w.Restart(w.ctx(), "a"); err != nil {
		t.Fatal(err)
	}
	st := w.get("a")
	if me := askSelf(t, s.SocketPath); st.State != supervise.Ready || me.PID != st.PID {
		t.Errorf("status %+v, but %d answers", st, me.PID)
	}
	if n := processesWith(t, "NAME=a"); n != 1 {
		t.Errorf("%d processes of one service", n)
	}
}

func TestRestartsAskedForTogetherAreFew(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "slow")
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	w.untilState("a", supervise.Ready)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := w.Restart(w.ctx(), "a"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := w.get("a").Restarts; n < 1 || n > 4 {
		t.Errorf("10 restarts asked for at once made %d", n)
	}
}

func TestStubbornServiceIsKilled(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "stubborn")
	s.Stop.Timeout = ms(100)
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	w.untilState("a", supervise.Ready)
	if err := w.Stop(w.ctx(), "a"); err != nil {
		t.Fatal(err)
	}
	if st := w.get("a"); st.LastExit == nil || st.LastExit.Signal != "SIGKILL" {
		t.Errorf("last exit: %+v", st.LastExit)
	}
}

func TestShutdownIsBoundedInAll(t *testing.T) {
	dir := tempDir(t)
	a, b := service(dir, "a", "stubborn"), service(dir, "b", "stubborn")
	a.Stop.Timeout, b.Stop.Timeout, b.After = ms(3_600_000), ms(3_600_000), []string{"a"}
	w := run(t, dir, map[string]supervise.Spec{"a": a, "b": b}, func(c *supervise.Config, _ *supervise.Deps) {
		c.Timing.Shutdown = 300 * time.Millisecond
	})
	pidA, pidB := w.untilState("a", supervise.Ready).PID, w.untilState("b", supervise.Ready).PID
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if !gone(pidA) || !gone(pidB) {
		t.Error("a process outlived Run")
	}
}

func TestForeignProgramBindsItsOwnSocket(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "foreign", "foreign")
	s.Inherit = false
	s.Env["SOCKET"] = s.SocketPath
	plain := supervise.Spec{Cmd: []string{"sleep", "1000"}}
	w := run(t, dir, map[string]supervise.Spec{"foreign": s, "plain": plain})
	w.untilState("foreign", supervise.Ready)
	st := w.untilState("plain", supervise.Running)
	kill(t, st.PID, syscall.SIGKILL)
	w.until("plain", "runs again", func(now supervise.Status) bool { return now.State == supervise.Running && now.PID != st.PID })
}

func TestChattyServiceIsNeverHeldUp(t *testing.T) {
	dir := tempDir(t)
	blocked := &blockedWriter{free: make(chan struct{})}
	w := run(t, dir, map[string]supervise.Spec{"a": service(dir, "a", "chatty")}, func(_ *supervise.Config, d *supervise.Deps) {
		d.Stderr = blocked // a reader that has gone to sleep
	})
	pid := w.untilState("a", supervise.Ready).PID // writes 4 MB before that
	kill(t, pid, syscall.SIGKILL)
	st := w.until("a", "is dead", func(st supervise.Status) bool { return st.LastExit != nil })
	if n := len(st.StderrTail); n != 20 || !strings.HasPrefix(st.StderrTail[n-1], "stderr line 19999 yyy") {
		t.Errorf("tail of %d lines: %.200q", n, st.StderrTail)
	}
	close(blocked.free)
	eventually(t, "stdout is passed on", func() bool { return strings.Contains(w.out.String(), "stdout line 0\n") })
	eventually(t, "losses are told", func() bool { return strings.Contains(blocked.String(), "lines of output dropped") })
	first, _, _ := strings.Cut(blocked.String(), "\n")
	if len(first) > 33<<10 || !strings.HasSuffix(first, "bytes more") {
		t.Errorf("the long line has %d bytes and ends %q", len(first), first[max(0, len(first)-40):])
	}
}

type blockedWriter struct {
	buffer
	free chan struct{}
}

func (b *blockedWriter) Write(p []byte) (int, error) {
	<-b.free
	return b.buffer.Write(p)
}

func TestRemovedSocketFileIsMadeAgainWithTheNextStart(t *testing.T) {
	dir := tempDir(t)
	s := service(dir, "a", "good")
	s.Heartbeat.Interval = ms(20)
	w := run(t, dir, map[string]supervise.Spec{"a": s})
	w.untilState("a", supervise.Ready)
	if err := os.Remove(s.SocketPath); err != nil {
		t.Fatal(err)
	}
	w.until("a", "is restarted and ready", func(st supervise.Status) bool { return st.Restarts == 1 && st.State == supervise.Ready })
}
