//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/lab"
)

const logsState = "/var/lib/vpnd/logs"

// logLine is a line of JSON that hardly compresses, and its message.
func logLine(rng *rand.Rand, id string, size int) (line, message string) {
	var b strings.Builder
	b.WriteString(id)
	for b.Len() < size {
		b.WriteString(" " + strconv.FormatUint(rng.Uint64(), 36))
	}
	return fmt.Sprintf(`{"ts":%q,"level":"info","message":%q}`+"\n", time.Now().UTC().Format(time.RFC3339Nano), b.String()), b.String()
}

// cpuTime is what a process has used of the processors.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // from the state on
	ticks := 0
	for _, s := range f[11:13] { // utime and stime
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

func (w *logsWorld) sizeOfStore(mib int) {
	w.t.Helper()
	err := w.Machine(lab.Server).Do(func() error {
		return unix.Mount("tmpfs", logsState, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%dm", mib))
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// saysFull waits until both screens say that the disk is full and what to do.
func (w *logsWorld) saysFull() {
	w.t.Helper()
	for _, cmd := range [][]string{{"logs", "status"}, {"status"}} {
		eventually(w.t, 30*time.Second, func() error {
			s := w.on("vpnctl", cmd...)
			if !strings.Contains(s.out, "full") || !strings.Contains(s.out, "free space at "+logsState) {
				return fmt.Errorf("vpnctl %s does not say that the disk is full and what to do\n%s", strings.Join(cmd, " "), s)
			}
			return nil
		})
	}
}

// answers asks what has to be answered whatever the disk.
func (w *logsWorld) answers(total int64) {
	w.t.Helper()
	n, err := w.count("")
	if err != nil || n == 0 || n > total {
		w.t.Errorf("count on a full disk: %d of %d lines, %v", n, total, err)
	}
	for _, args := range [][]string{{"-n", "5"}, {"w0x3"}, {"level>=info", "-n", "3"}, {"stats", "--by", "level"}, {"histogram"}, {"fields"}} {
		if s := w.on("vpnctl", append([]string{"logs"}, args...)...); s.status != 0 || s.out == "" {
			w.t.Errorf("vpnctl logs %s on a full disk: %s", strings.Join(args, " "), s)
		}
	}
}

func TestLogsDiskFull(t *testing.T) {
	const mib = 6
	w := newLogsWorld(t, 0, func() error {
		if err := os.MkdirAll(logsState, 0o755); err != nil {
			return err
		}
		return unix.Mount("tmpfs", logsState, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=755", mib))
	})
	before := w.service("logs")

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var messages []string
	var failed error
	for i := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i)))
			for n := 0; ctx.Err() == nil; n++ {
				line, message := logLine(rng, fmt.Sprintf("w%dx%d", i, n), 100+rng.IntN(1500))
				err := appendTo(w.at(appLogs, fmt.Sprintf("w%d.log", i)), line)
				mu.Lock()
				messages = append(messages, message)
				failed = errors.Join(failed, err)
				mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		})
	}
	total := func() int64 {
		mu.Lock()
		defer mu.Unlock()
		return int64(len(messages))
	}
	eventually(t, 60*time.Second, func() error {
		if s := w.logsStatus(); s.Problem == "" {
			return fmt.Errorf("%d lines were written, and status shows %d bytes and no problem", total(), s.Bytes)
		}
		return nil
	})
	w.saysFull()
	w.answers(total())
	cpu, began := cpuTime(t, before.PID), time.Now()
	time.Sleep(3 * time.Second) // a measurement
	busy := float64(cpuTime(t, before.PID)-cpu) / float64(time.Since(began))
	t.Logf("on a full disk the service uses %.0f %% of a processor", 100*busy)
	if busy > 0.5 {
		t.Errorf("it spins: %.0f %% of a processor", 100*busy)
	}
	w.saysFull()
	stop()
	wg.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	t.Logf("%d lines written, %v taken in when the disk was full", total(), w.logsStatus().Rows)

	w.sizeOfStore(256)
	w.counts("", total(), 60*time.Second)
	w.once(messages)
	eventually(t, 20*time.Second, func() error {
		if s := w.logsStatus(); s.Problem != "" {
			return fmt.Errorf("there is space again and status says: %s", s.Problem)
		}
		if s := w.on("vpnctl", "status"); strings.Contains(s.out, "full") {
			return fmt.Errorf("there is space again and vpnctl status says\n%s", s.out)
		}
		return nil
	})
	if after := w.service("logs"); after.PID != before.PID || after.Restarts != before.Restarts {
		t.Errorf("the service was restarted: pid %d, then %d; last exit %s", before.PID, after.PID, after.LastExit)
	}
}

// TestLogsKilledOnAFullDisk has the service start where nothing can be written.
func TestLogsKilledOnAFullDisk(t *testing.T) {
	w := newLogsWorld(t, 0, func() error {
		if err := os.MkdirAll(logsState, 0o755); err != nil {
			return err
		}
		return unix.Mount("tmpfs", logsState, "tmpfs", 0, "size=6m,mode=755")
	})
	rng := rand.New(rand.NewPCG(1, 2))
	var messages []string
	for i := 0; w.logsStatus().Problem == ""; i++ {
		var b strings.Builder
		for k := range 200 {
			line, message := logLine(rng, fmt.Sprintf("w%dx%d", i, k), 1000)
			b.WriteString(line)
			messages = append(messages, message)
		}
		w.write(appLogs+"/w.log", b.String())
		if i > 200 {
			t.Fatalf("%d lines fit into 6 MiB", len(messages))
		}
		w.settled()
	}
	filler := w.at(logsState, "filler") // the last byte
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for _, err = f.Write(make([]byte, 4096)); err == nil; _, err = f.Write(make([]byte, 1)) {
	}
	_ = f.Close()

	pid := w.service("logs").PID
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() error {
		if s := w.service("logs"); s.PID == pid || s.PID == 0 {
			return fmt.Errorf("killed on a full disk, it is %s: %s", s.State, s.Reason)
		}
		_, err := logs.GetStatus.Call(t.Context(), w.conn, nil)
		return err
	})
	w.saysFull()
	w.answers(int64(len(messages)))
	if s := w.on("vpnctl", "logs", "purge", "w0x7", "--accept-risk=destroy-data"); s.status != 0 && !strings.Contains(s.err, "full") {
		t.Errorf("removing a line on a full disk: %s", s)
	} else if t.Log(s); s.status == 0 {
		messages = slices.DeleteFunc(messages, func(m string) bool { return strings.HasPrefix(m, "w0x7 ") })
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.sizeOfStore(256)
	w.counts("", int64(len(messages)), 60*time.Second)
	w.once(messages)
}

// settled waits until all that is in the watched files is taken in, or the
// service says why not.
func (w *logsWorld) settled() {
	w.t.Helper()
	eventually(w.t, 30*time.Second, func() error {
		s := w.logsStatus()
		if s.Problem != "" {
			return nil
		}
		for _, f := range s.Files {
			info, err := os.Stat(w.at(f.Path))
			if err == nil && f.Skipped == "" && f.Offset < info.Size() {
				return fmt.Errorf("%s is read up to %d of %d", f.Path, f.Offset, info.Size())
			}
		}
		return nil
	})
}
