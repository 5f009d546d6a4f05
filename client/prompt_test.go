//go:build linux

package client_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal and what was shown on it.
type terminal struct {
	keyboard, stdin *os.File

	mu    sync.Mutex
	shown bytes.Buffer
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	pts, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{keyboard: ptmx, stdin: pts}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := ptmx.Read(buf)
			term.mu.Lock()
			term.shown.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _, _ = pts.Close(), ptmx.Close() })
	return term
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.shown.String()
}

// expect waits until the text was shown, and types.
func (x *terminal) expect(t *testing.T, text, typed string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(x.text(), text); {
		if time.Now().After(deadline) {
			t.Fatalf("never asked %q: %q", text, x.text())
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
	fmt.Fprint(x.keyboard, typed)
}

func (p *person) startOn(x *terminal, line string) *exec.Cmd {
	p.t.Helper()
	line = strings.ReplaceAll(line, "$SERVER", p.server.Address().String())
	cmd := exec.Command(p.vpn, strings.Fields(line)...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(p.dir, "config"), "SUDO_UID=")
	cmd.Stdin, cmd.Stderr = x.stdin, x.stdin
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	p.t.Cleanup(func() { timer.Stop() })
	return cmd
}

func TestFirstContactAsks(t *testing.T) {
	p := newPerson(t)
	x := newTerminal(t)
	cmd := p.startOn(x, "login $SERVER")
	x.expect(t, p.server.Pin().String(), "")
	x.expect(t, "Type yes to go on: ", "no\n")
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 6 || p.server.Calls("auth.pubkey") != 0 {
		t.Errorf("exit status %d, %d calls", got, p.server.Calls("auth.pubkey"))
	}

	x = newTerminal(t)
	cmd = p.startOn(x, "login $SERVER")
	x.expect(t, "Type yes to go on: ", "yes\n")
	x.expect(t, "Username or e-mail: ", "alice\n")
	x.expect(t, "Password: ", "correct horse\n")
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, x.text())
	}
	if strings.Contains(x.text(), "correct horse") {
		t.Errorf("the password was shown: %q", x.text())
	}
	p.run("", "status").out(`^Signed in  alice`)

	// The second time only the password is asked for.
	x = newTerminal(t)
	cmd = p.startOn(x, "login")
	x.expect(t, "Password: ", "correct horse\n")
	if err := cmd.Wait(); err != nil || strings.Contains(x.text(), "yes") {
		t.Errorf("%v: %q", err, x.text())
	}
}

func TestAnInterruptedPasswordPromptRestoresTheTerminal(t *testing.T) {
	p := newPerson(t)
	p.run("", signIn).exits(0)
	x := newTerminal(t)
	cmd := p.startOn(x, "login")
	x.expect(t, "Password: ", "")
	echo := func() bool {
		s, err := unix.IoctlGetTermios(int(x.stdin.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return s.Lflag&unix.ECHO != 0
	}
	for deadline := time.Now().Add(5 * time.Second); echo() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // between two looks
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 130 || !echo() {
		t.Errorf("exit status %d, echo %v", got, echo())
	}
}
