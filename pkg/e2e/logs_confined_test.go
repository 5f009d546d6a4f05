//go:build linux

package e2e_test

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vpnd/pkg/lab"
)

// become makes the calling thread, which ends soon, somebody else for good.
func become(uid, gid int, groups ...int) error {
	list := make([]uint32, len(groups)+1) // one more than counts, to have an address
	for i, g := range groups {
		list[i] = uint32(g)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&list[0])), 0); errno != 0 {
		return fmt.Errorf("groups: %w", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		return fmt.Errorf("gid: %w", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return fmt.Errorf("uid: %w", errno)
	}
	return nil
}

// TestLogsConfined looks at the running service, and then tries what its
// account may do.
func TestLogsConfined(t *testing.T) {
	w := newLogsWorld(t, 1, nil, "/var/log/vpnd")
	w.createUser("alice")
	w.connect(lab.Client(1), "alice", "laptop")
	w.counts("user=alice service=users event=user.created", 1, 15*time.Second)

	pid := w.service("logs").PID
	status := procStatus(t, pid)
	for field, want := range map[string]string{
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapInh": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		if status[field] != want {
			t.Errorf("%s is %s, want %s", field, status[field], want)
		}
	}
	uid, err := strconv.Atoi(strings.Fields(status["Uid"])[0])
	if err != nil || uid == 0 {
		t.Fatalf("it runs as %s: %v", status["Uid"], err)
	}
	gid, _ := strconv.Atoi(strings.Fields(status["Gid"])[0])
	groups := []int{}
	for g := range strings.FieldsSeq(status["Groups"]) {
		n, _ := strconv.Atoi(g)
		groups = append(groups, n)
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		flags := ""
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd.Name()))
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "flags:"); ok {
				flags = strings.TrimSpace(v)
			}
		}
		mode, _ := strconv.ParseUint(flags, 8, 64)
		writes := mode&unix.O_ACCMODE != unix.O_RDONLY
		own := strings.HasPrefix(to, logsState+"/") || strings.HasPrefix(to, "/var/log/vpnd/logs/")
		if strings.HasPrefix(to, "/") && to != "/dev/null" && writes && !own {
			t.Errorf("it holds %s open for writing", to)
		}
	}

	t.Run("its account", func(t *testing.T) {
		w := w.in(t)
		secrets := 0
		var walked []string
		err := filepath.WalkDir(w.at("/var/lib/vpnd"), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				walked = append(walked, strings.TrimPrefix(path, w.root))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		err = w.Machine(lab.Server).Do(func() error {
			if err := become(uid, gid, groups...); err != nil {
				return err
			}
			for _, path := range walked {
				own := strings.HasPrefix(path, logsState+"/")
				f, err := os.Open(path)
				if err == nil {
					_ = f.Close()
				}
				if (err == nil) != own && filepath.Dir(path) != "/var/lib/vpnd" {
					t.Errorf("reading %s: %v", path, err)
				}
				if !own {
					secrets++
				}
			}
			for _, dir := range []string{"/", "/etc", "/etc/vpnd", "/run", "/run/vpnd", "/var/lib", "/var/lib/vpnd", "/var/lib/vpnd/auth", "/var/log", "/var/log/vpnd", "/var/log/vpnd/auth", "/var/log/vpnd/control", appLogs} {
				f, err := os.CreateTemp(dir, "e2e-*.log")
				if err == nil {
					t.Errorf("it can make %s", f.Name())
					_ = f.Close()
					_ = os.Remove(f.Name())
				}
			}
			for _, path := range []string{"/var/log/vpnd/auth/auth.log", "/etc/vpnd/vpnd.toml", "/etc/passwd", "/var/log/vpnd.log", "/run/programs/vpnd"} {
				if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
					t.Errorf("it can write %s", path)
					_ = f.Close()
				}
			}
			if err := os.Remove("/var/log/vpnd/auth/auth.log"); err == nil {
				t.Error("it can remove the log of auth")
			}
			f, err := os.Open("/var/log/vpnd/auth/auth.log") // what it is for
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			t.Error(err)
		}
		if secrets < 5 {
			t.Errorf("only %d files of others were tried", secrets)
		}
	})

	t.Run("siblings", func(t *testing.T) {
		w := w.in(t)
		sockets, err := filepath.Glob(w.at("/run/vpnd/*.sock"))
		if err != nil || len(sockets) < 9 {
			t.Fatalf("sockets %v, %v", sockets, err)
		}
		for _, s := range sockets {
			s = strings.TrimPrefix(s, w.root)
			if answer := w.asks(uid, gid, groups, s, "GET /v1/logs HTTP/1.1"); strings.Contains(answer, " 200 ") {
				t.Errorf("the log service's account is answered on %s: %s", s, answer)
			}
		}
	})

	t.Run("strangers", func(t *testing.T) {
		w := w.in(t)
		err := w.Machine(lab.Server).Do(func() error {
			if err := become(12345, 12345); err != nil {
				return err
			}
			for _, dir := range []string{logsState, logsState + "/days", "/var/log/vpnd/logs", "/var/log/vpnd/auth", "/run/vpnd/logs"} {
				if _, err := os.ReadDir(dir); err == nil {
					t.Errorf("a stranger can look into %s", dir)
				}
			}
			for _, f := range []string{logsState + "/saved.db", logsState + "/days/state.db", logsState + "/days/" + dayName(time.Now().UTC(), 0) + ".db", "/var/log/vpnd/auth/auth.log"} {
				if _, err := os.ReadFile(f); err == nil {
					t.Errorf("a stranger can read %s", f)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/v1/logs", "/v1/logs-count", "/v1/logs-status", "/v1/logs-export", "/v1/logs-follow", "/v1/logs-saved"} {
			for _, socket := range []string{"/run/vpnd/logs.sock", "/run/vpnd/control.sock"} {
				if a := w.asks(12345, 12345, nil, socket, "GET "+path+" HTTP/1.1"); a != "" && !strings.Contains(a, " 403 ") {
					t.Errorf("a stranger asks %s for %s: %s", socket, path, a)
				}
			}
			// Root is nobody's sibling.
			if a := w.asks(0, 0, nil, "/run/vpnd/logs.sock", "GET "+path+" HTTP/1.1"); a != "" && !strings.Contains(a, " 403 ") {
				t.Errorf("root asks the service itself for %s: %s", path, a)
			}
		}
		for _, f := range w.filesOfStore() {
			info, err := os.Stat(w.at(f.path))
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %s", f.path, info.Mode())
			}
		}
	})
}

// asks sends a request to a socket as somebody, and gives what came back;
// nothing when that is not even let in.
func (w *logsWorld) asks(uid, gid int, groups []int, socket, request string) string {
	w.t.Helper()
	answer := ""
	err := w.Machine(lab.Server).Do(func() error {
		if uid != 0 {
			if err := become(uid, gid, groups...); err != nil {
				return err
			}
		}
		c, err := net.Dial("unix", socket)
		if err != nil {
			return nil
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := fmt.Fprintf(c, "%s\r\nHost: x\r\n\r\n", request); err != nil {
			return nil
		}
		buf := make([]byte, 1024)
		n, _ := c.Read(buf) // an early close refuses too
		answer = string(buf[:n])
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer
}
