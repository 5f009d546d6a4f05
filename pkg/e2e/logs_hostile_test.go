//go:build linux

package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/lab"
)

const (
	shadowMark = "root:$6$shadowmark"
	outside    = "a line of a file outside"
)

func TestLogsHostileFiles(t *testing.T) {
	const small = 5000
	w := newLogsWorld(t, 0, func() error {
		for path, text := range map[string]string{"/etc/shadow": shadowMark + ":19000:0:99999:7:::\n", "/var/lib/outside.log": outside + "\n", "/var/lib/0000.log": outside + "\n"} {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				return err
			}
		}
		return os.Chmod("/etc/shadow", 0o600)
	})
	before := w.service("logs")
	path := func(name string) string { return filepath.Join(appLogs, name) }
	odd := []string{"two\nlines.log", "\x1b[31mred\x1b]0;title\a.log", "bad\xff\xfeutf8.log", "#1.2.3.4.log", "-rf.log", " .log", "a%20b\\n'\".log", strings.Repeat("n", 251) + ".log"}
	var deep strings.Builder
	for range 60 {
		deep.WriteString("d/")
	}
	expect := map[string]int64{} // lines by a word
	err := w.Machine(lab.Server).Do(func() error {
		link := func(to, name string) error { return os.Symlink(to, path(name)) }
		steps := []func() error{
			func() error { return link(".", "loop") },
			func() error { return os.MkdirAll(path("a/b"), 0o755) },
			func() error { return link("..", "a/b/up") },
			func() error { return link("self.log", "self.log") },
			func() error { return link("/etc/shadow", "shadow.log") },
			func() error { return link("/etc/shadow", "shadow.txt") },
			func() error { return link("/var/lib/outside.log", "outside.log") },
			func() error { return link("/var/lib", "lib") },
			func() error { return link("/dev/zero", "zero.log") },
			func() error { return unix.Mkfifo(path("pipe.log"), 0o666) },
			func() error { return unix.Mkfifo(path("pipe.json"), 0) },
			func() error { return unix.Mknod(path("zero.txt"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
			func() error { return unix.Mknod(path("disk.log"), unix.S_IFBLK|0o666, int(unix.Mkdev(7, 0))) },
			func() error { return os.Mkdir(path("folder.log"), 0o755) },
			func() error { return os.Mkdir(path("closed"), 0) },
			func() error { return os.WriteFile(path("closed/in.log"), []byte("closedline\n"), 0o644) },
			func() error { return os.Mkdir(path("noexec"), 0o744) },
			func() error { return os.WriteFile(path("noexec/in.log"), []byte("closedline\n"), 0o644) },
			func() error { return os.WriteFile(path("mine.log"), []byte("closedline\n"), 0o600) },
			func() error { return os.WriteFile(path("none.log"), []byte("closedline\n"), 0) },
			func() error { return os.Chown(path("none.log"), 4242, 4242) },
			func() error { return os.WriteFile(path("old.log.gz"), []byte("closedline\n"), 0o644) },
			func() error { return os.WriteFile(path("old.log.3"), []byte("closedline\n"), 0o644) },
			func() error { return os.MkdirAll(path(deep.String()), 0o755) },
			func() error { return os.WriteFile(path(deep.String()+"deep.log"), []byte("deepline\n"), 0o644) },
			func() error { return os.MkdirAll(path("many"), 0o755) },
		}
		for i, step := range steps {
			if err := step(); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
		for _, name := range odd {
			if err := os.WriteFile(path(name), []byte("oddline\n"), 0o644); err != nil {
				return err
			}
		}
		for i := range small {
			if err := os.WriteFile(path(fmt.Sprintf("many/%04d.log", i)), fmt.Appendf(nil, "smallline %d\n", i), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := func() (l net.Listener, err error) {
		err = w.Machine(lab.Server).Do(func() error { l, err = net.Listen("unix", path("socket.log")); return err })
		return l, err
	}()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.write(path("folder.log/plain.log"), "ordinary 1\n")
	expect["deepline"], expect["oddline"], expect["smallline"], expect["ordinary"] = 1, int64(len(odd)), small, 1
	for word, n := range expect {
		w.counts(word, n, 60*time.Second)
	}

	t.Run("a followed file becomes a pipe, and a link", func(t *testing.T) {
		w := w.in(t)
		for i, become := range []func(string) error{
			func(p string) error { return unix.Mkfifo(p, 0o666) },
			func(p string) error { return os.Symlink("/etc/shadow", p) },
			func(p string) error { return os.Mkdir(p, 0o755) },
		} {
			p := path(fmt.Sprintf("changes%d.log", i))
			w.write(p, fmt.Sprintf("changeline%d before\n", i))
			w.counts(fmt.Sprintf("changeline%d", i), 1, 10*time.Second)
			if err := w.Machine(lab.Server).Do(func() error { return os.Rename(p, p+".1") }); err != nil {
				t.Fatal(err)
			}
			if err := w.Machine(lab.Server).Do(func() error { return become(p) }); err != nil {
				t.Fatal(err)
			}
			w.write(p+".1", fmt.Sprintf("changeline%d after\n", i))
			w.counts(fmt.Sprintf("changeline%d", i), 2, 20*time.Second)
			if err := os.Remove(w.at(p)); err != nil {
				t.Fatal(err)
			}
			w.write(p, fmt.Sprintf("changeline%d again\n", i))
			w.counts(fmt.Sprintf("changeline%d", i), 3, 20*time.Second)
		}
	})

	t.Run("status says what is skipped", func(t *testing.T) {
		w := w.in(t)
		want := map[string]string{
			"loop": "link", "a/b/up": "link", "self.log": "link", "shadow.log": "link", "shadow.txt": "link", "outside.log": "link", "lib": "link", "zero.log": "link",
			"pipe.log": "pipe", "pipe.json": "pipe", "zero.txt": "device", "disk.log": "device", "socket.log": "socket",
			"closed": "permission", "mine.log": "permission", "none.log": "permission", "noexec": "permission",
		}
		eventually(t, 25*time.Second, func() error { // the next rescan
			got := map[string]string{}
			for _, f := range w.logsStatus().Files {
				got[f.Path] = f.Skipped
				if dir := filepath.Dir(f.Path); filepath.Base(dir) == "noexec" {
					got[dir] = f.Skipped // the folder or what is in it: either says it
				}
			}
			for name, why := range want {
				if !strings.Contains(got[path(name)], why) {
					return fmt.Errorf("%s: skipped because %q, want a word of %s", name, got[path(name)], why)
				}
			}
			return nil
		})
		out := w.vpnctl(0, "logs", "status")
		if strings.ContainsAny(out.out, "\x1b\a") || !strings.Contains(out.out, path("pipe.log")) {
			t.Errorf("names reach the terminal as they are, or are not there: %s", out)
		}
	})

	t.Run("hostile lines", func(t *testing.T) { hostileLines(t, w.in(t)) })

	for _, secret := range []string{"shadowmark", "closedline", `"` + outside + `"`} {
		w.counts(secret, 0, 5*time.Second)
	}
	w.export(func(r *logs.Record) {
		if strings.Contains(r.Message, shadowMark) || strings.Contains(string(r.Fields), shadowMark) {
			t.Errorf("/etc/shadow is in the rows: %+v", r)
		}
	})
	for _, f := range w.filesOfStore() {
		if bytes.Contains(f.data, []byte("shadowmark")) {
			t.Errorf("/etc/shadow is in %s", f.path)
		}
	}
	w.write(path("last.log"), "ordinary 2\n")
	w.counts("ordinary", 2, 20*time.Second)
	if after := w.service("logs"); after.PID != before.PID || after.State != "ready" {
		t.Errorf("the service is %s with pid %d, was %d; last exit %s", after.State, after.PID, before.PID, after.LastExit)
	}
	cpu, began := cpuTime(t, before.PID), time.Now()
	time.Sleep(2 * time.Second) // a measurement
	busy := float64(cpuTime(t, before.PID)-cpu) / float64(time.Since(began))
	t.Logf("with nothing to read the service uses %.0f %% of a processor", 100*busy)
	if busy > 0.5 {
		t.Errorf("it spins: %.0f %% of a processor", 100*busy)
	}
}

// hostileLines writes lines that aim at a terminal, a database, a browser, a
// spreadsheet, or at memory.
func hostileLines(t *testing.T, w *logsWorld) {
	const mib = 1 << 20
	lines := []string{
		"\x1b[2J\x1b]0;owned\a\x1b]52;c;cm0gLXJm\x07 escapes",
		"\u202egnp.exe \u2066 \u0085 \u009b31m bidi",
		"'; DROP TABLE mini; DROP TABLE segment; --",
		"<script>alert(1)</script><img src=x onerror=alert(1)>",
		`{"message":"\u001b[31mred","user":"<b>","level":{"a":"b"},"service":["x"],"ts":{},"=cmd|' /C calc'!A0":"@SUM(1)"}`,
		`{"message":"a","message":"b","user":"x","username":"y","level":"error","level":"debug"}`,
		`[1,2,3]`, `"text"`, `null`, `{`, `{"a":`, strings.Repeat("[", 50_000), strings.Repeat(`{"a":`, 20_000),
		`{"ts":"9999-12-31T23:59:59Z","message":"far"}`, `{"ts":-1,"message":"neg"}`, `{"ts":1e308,"message":"huge"}`, `{"ts":"0001-01-01T00:00:00Z","message":"zero"}`,
		"data: x\nevent: error\ndata: {}\n\nid: 7", // as a stream would have it
		strings.Repeat("\x01", mib-1),              // each is six bytes in JSON
		strings.Repeat("\xff ", mib/2-1),
		strings.Repeat("<", mib-1), // six bytes in JSON that is safe in HTML
		`{"message":"` + strings.Repeat("\x7f", mib-100) + `"}`,
		"long " + strings.Repeat("L", 2*mib),
		`{"user":"longjson","message":"` + strings.Repeat("J", 2*mib) + `"}`,
		`{` + strings.Repeat(`"k":1,`, 100_000) + `"end":1}`,
	}
	n := 0
	path := appLogs + "/hostile.log"
	for _, l := range lines {
		w.write(path, l+"\n")
		n += 1 + strings.Count(l, "\n")
	}
	written := time.Now()
	w.counts("file="+path, int64(n), 60*time.Second)
	t.Logf("%d lines taken in %s after they were written", n, time.Since(written).Round(time.Millisecond))
	rows, cut := 0, 0
	w.export(func(r *logs.Record) {
		rows++
		if r.Cut {
			cut++
			if len(r.Message) > 3*mib || !strings.HasPrefix(r.Message, "long L") && !strings.Contains(r.Message, "longjson") {
				t.Errorf("cut: %d bytes, %.40q", len(r.Message), r.Message)
			}
		}
	}, "file="+path)
	if rows != n || cut != 2 {
		t.Errorf("%d rows, want %d; %d of them cut, want 2", rows, n, cut)
	}
	for _, args := range [][]string{{"-n", "100"}, {"-o", "wide", "-n", "100"}, {"-o", "json", "-n", "100"}, {"-o", "jsonl", "-n", "0"}, {"-o", "raw", "-n", "100"}, {"-o", "yaml", "-n", "100"}, {"export", "--format", "csv"}} {
		began := time.Now()
		s := w.on("vpnctl", append(append([]string{"logs"}, args...), "file="+path)...)
		t.Logf("vpnctl logs %s: %d KiB in %s", strings.Join(args, " "), len(s.out)>>10, time.Since(began).Round(time.Millisecond))
		if s.status != 0 {
			t.Errorf("vpnctl logs %s: %s", strings.Join(args, " "), s)
		}
		if strings.ContainsAny(s.out+s.err, "\x1b\a\u009b\u0085") && args[0] != "export" {
			t.Errorf("vpnctl logs %s prints escape sequences", strings.Join(args, " "))
		}
	}
	began := time.Now()
	f := w.follows(1000, "logs", "file="+path)
	w.write(path, strings.Repeat("\x01", mib-1)+"\n"+"behind the long line\n")
	eventually(t, 20*time.Second, func() error {
		if r, _ := f.find(func(r *logs.Record) bool { return r.Message == "behind the long line" }); r == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			return fmt.Errorf("a follower never gets past a long line; it said: %q", clip(f.errs.String()))
		}
		return nil
	})
	t.Logf("followed past a long line in %s", time.Since(began).Round(time.Millisecond))
	f.end()
	for _, cmd := range [][]string{{"stats", "--by", "user,level,service"}, {"top", "message"}, {"fields"}, {"services"}, {"histogram", "--by", "level"}, {"histogram", "--bucket", "1s"}} {
		began = time.Now()
		s := w.on("vpnctl", append(append([]string{"logs"}, cmd...), "file="+path)...)
		t.Logf("vpnctl logs %s: %d KiB in %s", strings.Join(cmd, " "), len(s.out)>>10, time.Since(began).Round(time.Millisecond))
		if s.status != 0 || strings.ContainsAny(s.out, "\x1b\a") {
			t.Errorf("vpnctl logs %s: %s", strings.Join(cmd, " "), s)
		}
	}
}

type storeFile struct {
	path string
	data []byte
}

// filesOfStore reads all that the log service keeps.
func (w *logsWorld) filesOfStore() []storeFile {
	w.t.Helper()
	var out []storeFile
	err := filepath.WalkDir(w.at(logsState), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // a WAL may have gone meanwhile
		}
		if b, err := os.ReadFile(path); err == nil {
			out = append(out, storeFile{strings.TrimPrefix(path, w.root), b})
		}
		return nil
	})
	if err != nil || len(out) == 0 {
		w.t.Fatalf("%d files in the store, %v", len(out), err)
	}
	return out
}
