//go:build linux

package e2e_test

import (
	crypto "crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dated is a line of some days before now, and its message.
func dated(now time.Time, days, i int) (line, message string) {
	at := now.AddDate(0, 0, -days)
	message = fmt.Sprintf("d%dx%d happened", days, i)
	return fmt.Sprintf(`{"ts":%q,"level":"info","service":"app","message":%q}`+"\n", at.Format(time.RFC3339Nano), message), message
}

func dayName(now time.Time, days int) string { return now.AddDate(0, 0, -days).Format(time.DateOnly) }

// scramble overwrites a file in place, its logs of SQLite included.
func (w *logsWorld) scramble(name string) {
	w.t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		path := w.at(logsState, "days", name+suffix)
		info, err := os.Stat(path)
		if err != nil {
			if suffix == "" {
				w.t.Fatal(err)
			}
			continue
		}
		noise := make([]byte, info.Size())
		_, _ = crypto.Read(noise) // it never fails
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := f.Write(noise); err != nil {
			w.t.Fatal(err)
		}
		_ = f.Close()
	}
}

// damaged waits until just these days are reported as damaged.
func (w *logsWorld) damaged(want ...string) {
	w.t.Helper()
	eventually(w.t, 15*time.Second, func() error {
		s := w.logsStatus()
		var got []string
		for _, d := range s.Days {
			if d.Damaged != "" {
				got = append(got, d.Day)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || s.Problem == "" || s.Hint == "" {
			return fmt.Errorf("status calls %v damaged, want %v; problem %q, hint %q", got, want, s.Problem, s.Hint)
		}
		return nil
	})
	out := w.vpnctl(0, "logs", "status").out
	for _, day := range want {
		if !strings.Contains(out, day) || !strings.Contains(out, "damaged") {
			w.t.Errorf("vpnctl logs status does not say that %s is damaged:\n%s", day, out)
		}
	}
	if out := w.vpnctl(0, "status").out; !strings.Contains(out, "damaged") {
		w.t.Errorf("vpnctl status does not say that days of the log are damaged:\n%s", out)
	}
}

func TestLogsDamagedDay(t *testing.T) {
	const days, each = 6, 300
	w := newLogsWorld(t, 0, nil)
	now := time.Now().UTC() // of the whole test, also when midnight passes
	messages := map[int][]string{}
	add := func(day, n int) {
		t.Helper()
		var b strings.Builder
		for range n {
			line, message := dated(now, day, len(messages[day]))
			b.WriteString(line)
			messages[day] = append(messages[day], message)
		}
		w.write(fmt.Sprintf("%s/day%d.log", appLogs, day), b.String())
	}
	for day := range days {
		add(day, each)
	}
	w.counts("", days*each, 20*time.Second)
	whole := func(lost ...int) {
		t.Helper()
		var want []string
		for day := range days {
			gone := false
			for _, l := range lost {
				gone = gone || l == day
			}
			if !gone {
				want = append(want, messages[day]...)
			}
		}
		w.counts("", int64(len(want)), 20*time.Second)
		w.once(want)
		for _, args := range [][]string{{"-n", "5"}, {"happened", "-n", "5"}, {"stats", "--by", "service"}, {"histogram", "--bucket", "1d"}, {"top", "level"}, {"fields"}, {"services"}} {
			w.vpnctl(0, append([]string{"logs"}, args...)...)
		}
	}
	whole()

	// While it runs. What is damaged has to be looked at to be found.
	w.scramble(dayName(now, 3) + ".db")
	if _, err := w.count("time=" + dayName(now, 3) + " happened"); err != nil {
		t.Errorf("a question about the damaged day: %v", err)
	}
	w.damaged(dayName(now, 3))
	whole(3)
	add(0, 10)
	add(4, 10) // late lines of a day that is well
	messages[3] = nil
	add(3, 10) // late lines of the damaged day begin it anew
	whole()

	// While it is stopped.
	w.vpnctl(0, "service", "stop", "logs")
	w.scramble(dayName(now, 5) + ".db")
	add(1, 10)
	w.vpnctl(0, "service", "start", "logs")
	w.damaged(dayName(now, 5), dayName(now, 3))
	messages[5] = nil
	whole()

	// Today's file, while lines come.
	w.scramble(dayName(now, 0) + ".db")
	messages[0] = nil
	line, _ := dated(now, 0, 1_000_000)
	w.write(appLogs+"/day0.log", line) // it may go into the old file yet, or the new
	w.vpnctl(0, "logs", "-n", "1000")
	eventually(t, 20*time.Second, func() error {
		line, message := dated(now, 0, 2_000_000+int(time.Now().UnixNano()%1_000_000))
		w.write(appLogs+"/day0.log", line)
		id, _, _ := strings.Cut(message, " ")
		for range 20 {
			if n, err := w.count(id); err == nil && n == 1 {
				return nil
			}
			time.Sleep(20 * time.Millisecond)
		}
		return fmt.Errorf("lines of today are not taken in any more")
	})

	left, err := filepath.Glob(w.at(logsState, "days", "*.damaged"))
	if err != nil || len(left) < 3 {
		t.Errorf("set aside: %v, %v", left, err)
	}
}

// TestLogsDamagedPositions has the file that knows how far each log file is read.
func TestLogsDamagedPositions(t *testing.T) {
	w := newLogsWorld(t, 0, nil)
	now := time.Now().UTC()
	var messages []string
	add := func() {
		t.Helper()
		for day := range 4 {
			line, message := dated(now, day, len(messages))
			w.write(fmt.Sprintf("%s/%d.log", appLogs, len(messages)%7), line)
			messages = append(messages, message)
		}
		w.counts("", int64(len(messages)), 20*time.Second)
	}
	for range 20 {
		add()
	}
	w.vpnctl(0, "service", "stop", "logs")
	w.scramble("state.db")
	w.vpnctl(0, "service", "start", "logs")
	add()
	w.once(messages)

	// While it runs, and then it dies.
	w.scramble("state.db")
	add()
	if err := unix.Kill(w.service("logs").PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	add()
	w.once(messages)
}
