//go:build linux

package canary

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/lanes"
	"vpnd/pkg/config"
	"vpnd/pkg/sandbox"
)

// confined makes the test binary a process like the service's own.
const confined = "CANARY_TEST_CONFINED"

func TestMain(m *testing.M) {
	if os.Getenv(confined) != "" {
		runtime.LockOSThread() // no_new_privs counts for the thread that asks
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			panic(err)
		}
		if err := sandbox.Apply(sandbox.Policy{}); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// TestWorksWithoutPrivileges runs itself in the strictest sandbox, as nobody.
func TestWorksWithoutPrivileges(t *testing.T) {
	if os.Getenv(confined) != "" {
		if _, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0); err == nil {
			t.Fatal("not confined")
		}
		if r := newWorld(t, config.LeakTest{}).test(lanes.Tor); !r.OK {
			t.Errorf("%+v", r)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	dir, err := os.MkdirTemp("", "canary")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	program, err := os.ReadFile(os.Args[0])
	must(t, err, os.WriteFile(dir+"/test", program, 0o755))
	cmd := exec.CommandContext(t.Context(), dir+"/test", "-test.run=^TestWorksWithoutPrivileges$")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), confined+"=1", "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
