//go:build linux

package lab_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vpnd/pkg/lab"
)

func TestResolvConfIsTheMachinesOwn(t *testing.T) {
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, lab.Options{Clients: 2})
	m := l.Machine("client1")
	reader := func(m *lab.Machine) string {
		out, err := m.Command(os.Args[0], "cat", "/etc/resolv.conf").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	original := reader(m)
	// A process that was there before the change sees it too.
	early := m.Command(os.Args[0], "wait")
	ready, err := early.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	startAndReadLine(t, early, ready)
	const changed = "nameserver 10.0.0.1\n"
	if out, err := m.Command(os.Args[0], "replace", "/etc/resolv.conf", changed).CombinedOutput(); err != nil {
		t.Fatalf("atomic rename over resolv.conf: %v: %s", err, out)
	}
	if got := reader(m); got != changed {
		t.Errorf("another process of the machine reads %q", got)
	}
	got, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(early.Process.Pid), "root/etc/resolv.conf"))
	if err != nil || string(got) != changed {
		t.Errorf("an earlier process reads %q %v", got, err)
	}
	if got, err := m.ReadFile("/etc/resolv.conf"); err != nil || string(got) != changed {
		t.Errorf("this process reads %q %v in the machine", got, err)
	}
	if got := reader(l.Machine("client2")); got != original {
		t.Errorf("another machine reads %q", got)
	}
	if got, _ := os.ReadFile("/etc/resolv.conf"); !bytes.Equal(got, host) {
		t.Errorf("the host reads %q", got)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := early.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the waiting process ended with %v", err)
	}
}

func TestDefaultPathsAreTheMachinesOwn(t *testing.T) {
	paths := []string{"/run/vpnd", "/run/wireguard", "/etc/vpnd", "/var/lib/vpnd", "/var/log/vpnd"}
	isThere := func(p string) bool { _, err := os.Lstat(p); return err == nil }
	var before []bool
	for _, p := range paths {
		before = append(before, isThere(p))
	}
	l := newLab(t, lab.Options{Clients: 1})
	err := l.Machine(lab.Server).Do(func() error {
		for _, p := range paths {
			if isThere(p) {
				t.Errorf("%s is there from the start", p)
			}
			if err := os.Mkdir(p, 0o700); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = l.Machine("client1").Do(func() error {
		for _, p := range paths {
			if isThere(p) {
				t.Errorf("%s of the server is there on a client", p)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range paths {
		if isThere(p) != before[i] {
			t.Errorf("%s of the host changed", p)
		}
	}
}

func TestUnixSocketOfAMachine(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	var ln net.Listener
	err := l.Machine(lab.Server).Do(func() (err error) {
		ln, err = net.Listen("unix", "/run/control.sock")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := l.Machine(lab.Server).DialContext(t.Context(), "unix", "/run/control.sock")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if conn, err := l.Machine("client1").DialContext(t.Context(), "unix", "/run/control.sock"); err == nil {
		_ = conn.Close()
		t.Error("another machine's socket answers")
	}
}

func TestCloseEndsChildrenOfChildren(t *testing.T) {
	l := newLab(t, lab.Options{})
	out, err := l.Machine(lab.Server).Command(os.Args[0], "parent").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	procs, err := l.Processes()
	if err != nil || !slices.ContainsFunc(procs, func(p lab.Process) bool { return p.PID == pid && p.Machine == lab.Server }) {
		t.Fatalf("processes: %v %v", procs, err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Errorf("process %d runs on", pid)
	}
}

func TestCommand(t *testing.T) {
	l := newLab(t, lab.Options{})
	m := l.Machine(lab.Server)
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/0")
	env := m.Command("x").Env
	if !slices.Contains(env, "HOME=/run/home") || slices.ContainsFunc(env, func(s string) bool { return strings.HasPrefix(s, "XDG_") }) {
		t.Errorf("environment: %v", env)
	}
	t.Run("the exit status and what it said come back", func(t *testing.T) {
		_, err := m.Command(os.Args[0], "cat", "/nonexistent").Output()
		ee, ok := errors.AsType[*exec.ExitError](err)
		if !ok || ee.ExitCode() != 1 || !strings.Contains(string(ee.Stderr), "no such file") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("it has the input and the working directory that it is given", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/f", []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Chdir(dir)
		out, err := m.Command(os.Args[0], "cat", "f").Output()
		if err != nil || string(out) != "text" {
			t.Errorf("got %q %v", out, err)
		}
		cmd := m.Command(os.Args[0], "cat", "/dev/stdin")
		cmd.Stdin = strings.NewReader("input")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "input" {
			t.Errorf("got %q %v", out, err)
		}
	})
	t.Run("it sees the links of its machine", func(t *testing.T) {
		out, err := m.Command(os.Args[0], "cat", "/sys/class/net/eth0/ifindex").CombinedOutput()
		if err != nil {
			t.Errorf("got %q %v", out, err)
		}
	})
}

func TestOnlyTheInternetForwards(t *testing.T) {
	l := newLab(t, lab.Options{Clients: 1})
	for _, name := range l.Names() {
		want := "0"
		if name == lab.Internet {
			want = "1"
		}
		for _, path := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
			got, err := l.Machine(name).ReadFile(path)
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s of %s: got %q %v, want %s", path, name, got, err, want)
			}
		}
	}
}

func TestBuild(t *testing.T) {
	dir := t.TempDir()
	if err := lab.Build(t.Context(), dir, "vpnd/pkg/nonexistent"); err == nil {
		t.Error("a package that is not there was built")
	}
	if err := lab.Build(t.Context(), dir); err == nil {
		t.Error("nothing was built without a complaint")
	}
	if err := lab.Build(t.Context(), dir, "cmd/gofmt"); err != nil { // a small one that is always there
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "gofmt")); err != nil {
		t.Error(err)
	}
}
