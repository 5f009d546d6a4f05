//go:build linux

package e2e_test

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestLogsFollowLateLines has lines that arrive in another order than that of
// their times.
func TestLogsFollowLateLines(t *testing.T) {
	w := newLogsWorld(t, 0, nil)
	n := 0
	line := func(ago time.Duration) {
		t.Helper()
		n++
		w.write(appLogs+"/late.log", fmt.Sprintf(`{"ts":%q,"message":"late%d"}`+"\n", time.Now().UTC().Add(-ago).Format(time.RFC3339Nano), n))
		w.counts("late"+strconv.Itoa(n), 1, 15*time.Second)
	}
	got := func(f *logsFollower) []string {
		f.mu.Lock()
		defer f.mu.Unlock()
		var out []string
		for _, r := range f.got {
			out = append(out, r.Message)
		}
		return out
	}
	line(0)
	line(time.Second)
	line(2 * time.Second)
	line(24 * time.Hour)
	f := w.follows(0, "logs", "late*")
	eventually(t, 10*time.Second, func() error {
		if w.logsStatus().Followers != 1 {
			return io.ErrNoProgress
		}
		return nil
	})
	want := []string{}
	shows := func(ago time.Duration) {
		t.Helper()
		line(ago)
		want = append(want, "late"+strconv.Itoa(n))
		eventually(t, 10*time.Second, func() error {
			if g := got(f); !slices.Contains(g, want[len(want)-1]) {
				return fmt.Errorf("%s is not shown, only %v", want[len(want)-1], g)
			}
			return nil
		})
	}
	shows(0)
	shows(48 * time.Hour)
	shows(3 * time.Second)
	if g := got(f); !slices.Equal(g, want) {
		t.Errorf("shown %v, want %v", g, want)
	}

	// What comes late while the service is away comes after it.
	w.vpnctl(0, "service", "stop", "logs")
	away := []time.Duration{0, 5 * time.Second, 24 * time.Hour, 72 * time.Hour}
	for i, ago := range away {
		w.write(appLogs+"/late.log", fmt.Sprintf(`{"ts":%q,"message":"lateaway%d"}`+"\n", time.Now().UTC().Add(-ago).Format(time.RFC3339Nano), i))
		want = append(want, "lateaway"+strconv.Itoa(i))
	}
	w.vpnctl(0, "service", "start", "logs")
	w.counts("lateaway*", int64(len(away)), 15*time.Second)
	shows(0)
	g := got(f)
	for _, m := range want {
		switch times := len(slices.DeleteFunc(slices.Clone(g), func(o string) bool { return o != m })); times {
		case 1:
		case 0:
			t.Errorf("%s came late while the service was away, and is never shown", m)
		default:
			t.Errorf("%s is shown %d times", m, times)
		}
	}
	if len(g) != len(want) {
		t.Errorf("shown %v, want %v", g, want)
	}
}
