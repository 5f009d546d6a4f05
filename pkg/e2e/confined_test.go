//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/keys"
	"vpnd/pkg/lab"
	"vpnd/pkg/lab/site"
	"vpnd/pkg/rpc"
	"vpnd/pkg/service"
)

// intrude is the gateway's process taken over: the supervisor starts this test
// binary in the gateway's place, with everything the gateway has. It tries what
// the gateway must not be able to do and prints what came of it.
func intrude() int {
	return service.Main(service.Definition{Name: "gateway", Build: func(ctx context.Context, env *service.Env) (service.Instance, error) {
		report := func(what string, err error) {
			word := "allowed"
			if err != nil {
				word = "refused"
			}
			fmt.Printf("intruder %s: %s (%v)\n", what, word, err)
		}
		state := filepath.Dir(env.StateDir)
		for _, name := range []string{"keys", "users", "auth", "ipam", "sessions", "lanes", "control"} {
			_, err := os.ReadDir(filepath.Join(state, name))
			report("folder-"+name, err)
		}
		for _, path := range []string{"users/users.db", "auth/auth.db", "sessions/sessions.db", "keys/token.json", "lanes/wg0.key"} {
			f, err := os.Open(filepath.Join(state, path))
			if err == nil {
				_ = f.Close()
			}
			report("file-"+path, err)
		}
		socket := func(family, kind, proto int) error {
			fd, err := unix.Socket(family, kind, proto)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		}
		report("netlink-route", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE))
		report("netlink-netfilter", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER))
		report("netlink-generic", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC))
		report("packet", socket(unix.AF_PACKET, unix.SOCK_RAW, 0))
		report("raw", socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP))
		_, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		report("exec", err)
		report("setuid", unix.Setuid(0))
		tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err == nil {
			ifr, _ := unix.NewIfreq("intruder0")
			ifr.SetUint16(unix.IFF_TUN)
			err = unix.IoctlIfreq(int(tun.Fd()), unix.TUNSETIFF, ifr)
			_ = tun.Close()
		}
		report("make-interface", err)
		for _, name := range []string{"users", "ipam", "lanes", "control"} {
			path := filepath.Join(filepath.Dir(env.RunDir), name+".sock")
			conn := rpc.DialUnix(name, path, rpc.Options{Patience: -1})
			_, err := keys.Status.Call(ctx, conn, nil) // any operation: the caller is judged first
			report("call-"+name, err)
		}
		_, err = keys.Sign.Call(ctx, env.Sibling("keys"), &keys.SignRequest{})
		report("sign-a-token", err)
		fmt.Println("intruder done")
		return service.Instance{}, nil
	}})
}

func TestTheGatewayCanTouchNoKeyNoDatabaseNoKernelState(t *testing.T) {
	w := newWorld(t, 0, "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The account must be able to execute the test binary, which go test puts
	// below a folder of its own.
	public := filepath.Join(t.TempDir(), "e2e.test")
	if err := copyFile(self, public); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(public); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	override, err := json.Marshal(map[string]any{"services": map[string]any{"gateway": map[string]any{
		"cmd": []string{public, intruderArg},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	err = w.Machine(lab.Server).Do(func() error {
		return os.WriteFile(filepath.Join(filepath.Dir(site.ConfigPath), "services.json"), override, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	w.ctl(0, "", "service", "reload", "-y", "--accept-risk=lock-out,drop-sessions")
	var log string
	eventually(t, 10*time.Second, func() error {
		b, err := w.Machine(lab.Server).ReadFile(site.LogPath)
		if log = string(b); err == nil && !strings.Contains(log, "intruder done") {
			err = errors.New("the intruder has not reported")
		}
		return err
	})
	reports := 0
	for line := range strings.Lines(log) {
		what, ok := strings.CutPrefix(line, "intruder ")
		if !ok || strings.HasPrefix(what, "done") {
			continue
		}
		if reports++; strings.Contains(what, ": allowed") {
			t.Errorf("as the gateway: %s", what)
		}
	}
	if reports < 20 {
		t.Errorf("only %d attempts were reported:\n%s", reports, log)
	}
}

// TestServicesHaveNoMoreThanTheyNeed looks at every running service.
func TestServicesHaveNoMoreThanTheyNeed(t *testing.T) {
	w := newWorld(t, 0, "")
	procs, err := w.Processes()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	uids := map[string]string{}
	for _, p := range procs {
		if len(p.Args) != 3 || p.Args[1] != "service" {
			continue
		}
		seen++
		name := p.Args[2]
		status := procStatus(t, p.PID)
		caps := "0000000000000000"
		if name == "lanes" {
			caps = "0000000000001000" // CAP_NET_ADMIN
		}
		for field, want := range map[string]string{"CapEff": caps, "CapBnd": caps, "CapPrm": caps, "CapAmb": caps, "NoNewPrivs": "1", "Seccomp": "2"} {
			if status[field] != want {
				t.Errorf("%s: %s is %s, want %s", name, field, status[field], want)
			}
		}
		uid := strings.Fields(status["Uid"])[0]
		if other, taken := uids[uid]; taken || uid == "0" {
			t.Errorf("%s runs as uid %s, like %q", name, uid, other)
		}
		uids[uid] = name
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		if strings.Contains(strings.ToLower(string(env)), "password") {
			t.Errorf("%s: environment %q", name, env)
		}
	}
	if seen < 8 {
		t.Errorf("only %d services run", seen)
	}
}

func procStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		out[k] = strings.TrimSpace(v)
	}
	return out
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// TestStrangersAreRefusedOnEverySocket connects as an account that nobody
// knows.
func TestStrangersAreRefusedOnEverySocket(t *testing.T) {
	w := newWorld(t, 0, "")
	var sockets []string
	err := w.Machine(lab.Server).Do(func() (err error) {
		sockets, err = filepath.Glob("/run/vpnd/*.sock")
		return err
	})
	if err != nil || len(sockets) < 9 {
		t.Fatalf("sockets %v, %v", sockets, err)
	}
	for _, path := range sockets {
		err := w.Machine(lab.Server).Do(func() error {
			// The effective account of this thread, which ends with Do.
			if err := unix.Setfsuid(12345); err != nil {
				return err
			}
			_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 12345, 12345, 12345)
			if errno != 0 {
				return errno
			}
			c, err := net.Dial("unix", path)
			if err != nil {
				return nil // the socket's own permissions
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := fmt.Fprintf(c, "GET /v1/users HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				return nil
			}
			buf := make([]byte, 512)
			n, _ := c.Read(buf) // an early close refuses too
			if n > 0 && !strings.Contains(string(buf[:n]), " 403 ") {
				return fmt.Errorf("answered a stranger: %s", buf[:n])
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestAViewerMayLookAndNotChange connects as a member of the view group.
func TestAViewerMayLookAndNotChange(t *testing.T) {
	const viewUID, viewGID = 23456, 23457
	l, err := lab.New(t.Context(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeLab(t, l) })
	w := &world{t: t, Site: mustSite(t, l)}
	err = w.Machine(lab.Server).Do(func() error {
		f, err := os.OpenFile("/etc/group", os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = fmt.Fprintf(f, "vpnd-view:x:%d:\n", viewGID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteConfig(w.Config() + cheap); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.createUser("alice")
	ask := func(request string) string {
		t.Helper()
		var answer string
		err := w.Machine(lab.Server).Do(func() error {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, viewGID, viewGID, viewGID); errno != 0 {
				return errno
			}
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, viewUID, viewUID, viewUID); errno != 0 {
				return errno
			}
			c, err := net.Dial("unix", "/run/vpnd/control.sock")
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: vpnd\r\n\r\n", request); err != nil {
				return err
			}
			buf := make([]byte, 4096)
			n, err := c.Read(buf)
			answer = string(buf[:n])
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		return answer
	}
	if a := ask("GET /v1/users"); !strings.Contains(a, " 200 ") || !strings.Contains(a, "alice") {
		t.Errorf("looking: %s", a)
	}
	if a := ask("DELETE /v1/users/alice"); !strings.Contains(a, " 403 ") || !strings.Contains(a, `"code":"denied"`) {
		t.Errorf("changing: %s", a)
	}
	w.ctl(0, "", "user", "get", "alice")
	if out := w.ctl(0, "", "audit", "list"); !strings.Contains(out, "user.delete") || !strings.Contains(out, "denied") {
		t.Errorf("the refused attempt is not in the audit trail:\n%s", out)
	}
}
