package sandbox_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/sandbox"
)

// confinedEnv makes this test binary confine itself and report what it can
// still do: a filter cannot be taken off again.
const confinedEnv = "SANDBOX_TEST_POLICY"

func TestMain(m *testing.M) {
	switch os.Getenv(confinedEnv) {
	case "":
		os.Exit(m.Run())
	case "strict":
		confined(sandbox.Policy{})
	case "lanes":
		confined(sandbox.Policy{Netlink: true, Exec: true})
	}
}

func confined(p sandbox.Policy) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fmt.Println(err)
		return
	}
	// A second thread proves that the filter is on all of them.
	other := make(chan func() string)
	go func() { fmt.Println("thread: " + (<-other)()) }()
	if err := sandbox.Apply(p); err != nil {
		fmt.Println("apply:", err)
		return
	}
	socket := func(family int) string {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if family == unix.AF_INET || family == unix.AF_UNIX {
			fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		}
		if err == nil {
			_ = unix.Close(fd)
		}
		return word(err)
	}
	other <- func() string { return socket(unix.AF_NETLINK) }
	fmt.Println("netlink:", socket(unix.AF_NETLINK))
	fmt.Println("packet:", socket(unix.AF_PACKET))
	fmt.Println("inet:", socket(unix.AF_INET))
	fmt.Println("unix:", socket(unix.AF_UNIX))
	fmt.Println("ptrace:", word(unix.PtraceAttach(os.Getppid())))
	fmt.Println("unshare:", word(unix.Unshare(unix.CLONE_NEWNET)))
	fmt.Println("exec:", word(exec.Command("/bin/true").Run()))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fmt.Println("listen:", word(err))
	if err == nil {
		_ = l.Close()
	}
	<-time.After(100 * time.Millisecond) // the other thread's line
}

func word(err error) string {
	switch {
	case err == nil:
		return "allowed"
	case errors.Is(err, unix.EPERM):
		return "refused"
	}
	return err.Error()
}

func TestAConfinedProcessKeepsWhatItNeedsAndNothingElse(t *testing.T) {
	for policy, want := range map[string][]string{
		"strict": {"netlink: refused", "thread: refused", "packet: refused", "inet: allowed", "unix: allowed",
			"ptrace: refused", "unshare: refused", "exec: refused", "listen: allowed"},
		"lanes": {"netlink: allowed", "thread: allowed", "packet: refused", "ptrace: refused", "unshare: refused", "exec: allowed"},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), confinedEnv+"="+policy)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", policy, err, out)
		}
		for _, line := range want {
			if !strings.Contains(string(out), line) {
				t.Errorf("%s: no %q in\n%s", policy, line, out)
			}
		}
	}
}

func TestApplyWantsNoNewPrivs(t *testing.T) {
	if nnp, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); nnp == 1 {
		t.Skip("this process has no_new_privs already")
	}
	if err := sandbox.Apply(sandbox.Policy{}); err == nil {
		t.Error("applied without no_new_privs")
	}
}
