//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/api/supervisor"
)

const (
	logWriters = 20
	logKills   = 200
	logFaults  = 320 // kills and rotations
)

// TestLogsExactlyOnce has twenty writers, and a log service that is killed all
// the time while they rotate their files in every way there is.
func TestLogsExactlyOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	w := newLogsWorld(t, 0, nil)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()

	var kills, rotated, failed atomic.Int64
	enough := func() bool {
		return failed.Load() > 0 || kills.Load() >= logKills && kills.Load()+rotated.Load() >= logFaults
	}
	crew := make([]*logWriter, logWriters)
	var wg sync.WaitGroup
	for i := range crew {
		name := fmt.Sprintf("w%02d", i)
		lw := &logWriter{w: w, rng: rand.New(rand.NewPCG(seed, uint64(i+1))), name: name,
			path: w.at(appLogs, fmt.Sprint(i%5), name+".log"), rotations: map[string]int{}}
		const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,-"
		noise := make([]byte, 2*longLine)
		for k := range noise {
			noise[k] = letters[lw.rng.IntN(len(letters))]
		}
		lw.noise = string(noise)
		crew[i] = lw
		wg.Go(func() {
			if lw.err = lw.run(ctx, &rotated, enough); lw.err != nil {
				failed.Add(1)
			}
		})
	}
	began := time.Now()
	for pid := 0; kills.Load() < logKills && failed.Load() == 0; kills.Add(1) {
		pid = w.killLogs(ctx, rng, pid)
	}
	t.Logf("%d kills in %s", kills.Load(), time.Since(began).Round(time.Second))
	wg.Wait()

	total, kinds := 0, map[string]int{}
	for _, lw := range crew {
		if lw.err != nil {
			t.Errorf("%s: %v", lw.name, lw.err)
		}
		total += len(lw.lines)
		for k, n := range lw.rotations {
			kinds[k] += n
		}
	}
	t.Logf("%d lines; %d rotations: %v; all after %s", total, rotated.Load(), kinds, time.Since(began).Round(time.Second))
	if t.Failed() {
		return
	}
	began = time.Now()
	n, err := int64(0), error(nil)
	for n != int64(total) && time.Since(began) < 30*time.Second {
		n, err = w.count("")
		time.Sleep(20 * time.Millisecond)
	}
	if n != int64(total) || err != nil {
		t.Errorf("%d lines were written and %d are there, %v", total, n, err)
	}
	if got := strings.TrimSpace(w.vpnctl(0, "logs", "count").out); got != fmt.Sprint(total) {
		t.Errorf("vpnctl logs count says %s, want %d", got, total)
	}
	counted := time.Now()
	checkOnce(w, crew, total)
	t.Logf("all counted %s later, exported in %s", counted.Sub(began).Round(time.Millisecond), time.Since(counted).Round(time.Millisecond))
	if st := w.logsStatus(); st.Problem != "" || st.Rows != int64(total) {
		t.Errorf("in the end status shows %d rows and the problem %q, want %d and none", st.Rows, st.Problem, total)
	}
}

// killLogs kills the process of the log service at a random moment of its
// life, and gives its pid. before is the one that was killed last.
func (w *logsWorld) killLogs(ctx context.Context, rng *rand.Rand, before int) int {
	w.t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	pid, asked := 0, false
	for deadline := time.Now().Add(time.Minute); pid == 0; time.Sleep(5 * time.Millisecond) {
		s, err := supervisor.Get.Call(ctx, w.conn, &supervisor.Ref{Service: "logs"})
		switch {
		case err != nil || time.Now().After(deadline):
			w.t.Fatalf("the log service does not come back: %+v, %v", s, err)
		case s.PID != 0 && s.PID != before:
			pid = s.PID
		case !asked && (s.State == "backoff" || s.State == "failed"):
			// The pause before a restart grows with deaths that follow one another;
			// an operator's start ends it.
			asked = true
			wg.Go(func() { _, _ = supervisor.Start.Call(ctx, w.conn, &supervisor.Ref{Service: "logs"}) })
		}
	}
	wait := time.Duration(rng.IntN(120)) * time.Millisecond // while it starts
	if rng.IntN(2) == 0 {
		wait = time.Duration(100+rng.IntN(400)) * time.Millisecond
	}
	time.Sleep(wait)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		w.t.Errorf("kill %d: %v", pid, err)
	}
	return pid
}

// checkOnce compares an export with what was written.
func checkOnce(w *logsWorld, crew []*logWriter, total int) {
	w.t.Helper()
	type seen struct{ times, wrong int }
	byName := map[string][]seen{}
	for _, lw := range crew {
		byName[lw.name] = make([]seen, len(lw.lines))
	}
	rows, strange := 0, 0
	w.export(func(r *logs.Record) {
		rows++
		id, _, _ := strings.Cut(r.Message, " ")
		if len(r.Fields) > 0 {
			var f struct{ ID string }
			_ = json.Unmarshal(r.Fields, &f) // an id that is not there is told below
			id = f.ID
		}
		name, number, _ := strings.Cut(id, "x")
		i := 0
		_, err := fmt.Sscanf(number, "%06d", &i)
		s := byName[name]
		if err != nil || i >= len(s) {
			if strange++; strange <= 5 {
				w.t.Errorf("a row that nobody wrote: %.200q of %s", r.Message, r.File)
			}
			return
		}
		s[i].times++
		var want wrote
		for _, lw := range crew {
			if lw.name == name {
				want = lw.lines[i]
			}
		}
		if sumOf(r.Message, r.Level, r.User) != want.sum || want.at != 0 && r.Time.UnixMicro() != want.at || r.Cut {
			s[i].wrong++
		}
	})
	bad := map[string]int{}
	for _, lw := range crew {
		for i, s := range byName[lw.name] {
			switch {
			case s.times == 1 && s.wrong == 0:
				continue
			case s.wrong > 0:
				bad["changed"]++
			case s.times == 0:
				bad["missing"]++
			default:
				bad["more than once"]++
			}
			if len(bad) > 0 && bad["shown"] < 10 {
				bad["shown"]++
				w.t.Errorf("%s is there %d times, %d of them not as it was written", lw.id(i), s.times, s.wrong)
			}
		}
	}
	delete(bad, "shown")
	if rows != total || len(bad) > 0 || strange > 0 {
		w.t.Errorf("%d lines were written and %d exported; wrong: %v, strange: %d", total, rows, maps.Clone(bad), strange)
	}
}
