package bridges

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/torctl"
)

const (
	// handshakeDone is tor's bootstrap stage after the bridge has proven who it
	// is (control-spec, section 5.1, "handshake_done").
	handshakeDone = 15
	// testTime bounds a test.
	testTime = 40 * time.Second
	// A problem that lasts as long as this ends a test. Tor tries again about
	// once a second; what a transport goes through may need some tries.
	plainPatience     = 3 * time.Second
	transportPatience = 20 * time.Second
	pollEvery         = 100 * time.Millisecond
)

// TestOptions are what a test needs to know of the caller's tor.
type TestOptions struct {
	Binary     string   // path of tor
	ExtraTorrc []string // lines that the lane's tor has too; none that opens a port
	Dir        string   // where the test makes its folder; the path of a socket below must fit 108 bytes
}

// Test tries to reach the bridge whose id begins with prefix: a tor of its own
// knows this bridge only, and must get through the handshake with it. What
// the bridge then does for traffic is not tested. An error means that there
// was no test.
func (b *Book) Test(ctx context.Context, prefix string, o TestOptions) (api.BridgeTest, error) {
	b.mu.Lock()
	i, err := b.named(prefix)
	if err != nil {
		b.mu.Unlock()
		return api.BridgeTest{}, err
	}
	v := b.bridges[i]
	b.mu.Unlock()
	if _, missing := b.plugin(v.Transport); missing != "" {
		return api.BridgeTest{Message: missing + ": " + remedy(v.Transport)}, nil
	}
	binary, why := torctl.FindTor(o.Binary)
	if why != "" {
		return api.BridgeTest{}, fault.New(fault.Unavailable, "tor is not installed: %s", why).WithHint(torctl.InstallHint)
	}
	o.Binary = binary
	if !b.trying.TryLock() {
		return api.BridgeTest{}, fault.New(fault.Conflict, "another bridge is being tested").WithRetryAfter(10 * time.Second)
	}
	defer b.trying.Unlock()
	began := time.Now()
	r, err := b.try(ctx, v, o)
	r.TookMs = time.Since(began).Milliseconds()
	return r, err
}

func (b *Book) try(ctx context.Context, v torctl.Bridge, o TestOptions) (api.BridgeTest, error) {
	dir, err := os.MkdirTemp(o.Dir, "bridge-")
	if err != nil {
		return api.BridgeTest{}, err
	}
	defer os.RemoveAll(dir)
	short, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	t, err := b.spawn(short, dir, v, o)
	if err != nil {
		return api.BridgeTest{}, fmt.Errorf("start tor: %w", err)
	}
	defer func() { cancel(); <-t.exited }()
	patience := plainPatience
	if v.Transport != "" {
		patience = transportPatience
	}
	stage, ok, err := t.handshake(short, patience)
	switch {
	case ok:
		return api.BridgeTest{OK: true, Message: "the bridge answers and is who it should be"}, nil
	case err != nil:
		return api.BridgeTest{Message: err.Error()}, nil
	case ctx.Err() != nil:
		return api.BridgeTest{}, fault.From(ctx.Err())
	}
	return api.BridgeTest{Message: fmt.Sprintf("stuck at %d %% (%s): %s", stage.Percent, stage.Summary, cmp.Or(stage.Warning, "no answer"))}, nil
}

// trial is a tor that knows one bridge.
type trial struct {
	socket, output string
	exited         chan struct{}
}

// spawn starts it. It ends with ctx, and by itself when we die.
func (b *Book) spawn(ctx context.Context, dir string, v torctl.Bridge, o TestOptions) (*trial, error) {
	t := &trial{socket: filepath.Join(dir, "control.sock"), output: filepath.Join(dir, "output.log"), exited: make(chan struct{})}
	lines := []string{
		"ClientOnly 1", "RunAsDaemon 0", "SafeLogging 1", "DisableNetwork 0", "SocksPort 0", "Log notice stdout",
		"DataDirectory " + quote(filepath.Join(dir, "data")),
		"ControlSocket " + quote(t.socket), "CookieAuthentication 1", "CookieAuthFile " + quote(filepath.Join(dir, "cookie")),
		fmt.Sprintf("__OwningControllerProcess %d", os.Getpid()),
	}
	lines = append(append(lines, b.torrc([]torctl.Bridge{v})...), o.ExtraTorrc...)
	torrc, defaults := filepath.Join(dir, "torrc"), filepath.Join(dir, "torrc-defaults") // empty: the host's is not ours
	if err := os.WriteFile(torrc, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(defaults, nil, 0o600); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(t.output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, o.Binary, "-f", torrc, "--defaults-torrc", defaults)
	cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = out, out
	// Tor ends at once and takes the transport's program with it.
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(syscall.SIGTERM) }, 3*time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = cmd.Wait(); close(t.exited) }()
	return t, nil
}

// handshake waits until tor is through the handshake, has had a problem for
// longer than patience, or ctx ends; then stage is how far it came. An error
// is what tor said about its own end.
func (t *trial) handshake(ctx context.Context, patience time.Duration) (stage torctl.Bootstrap, ok bool, err error) {
	var c *torctl.Client
	defer func() {
		if c != nil {
			_ = c.Close()
		}
	}()
	var trouble time.Time
	for {
		if c == nil {
			c, _ = torctl.Dial(ctx, t.socket)
		}
		if c != nil {
			switch now, err := c.Bootstrap(ctx); {
			case err != nil: // tor has ended, or ctx
			case now.Percent >= handshakeDone:
				return now, true, nil
			case now.Warning == "" || now.Percent > stage.Percent:
				stage, trouble = now, time.Time{}
			case trouble.IsZero():
				stage, trouble = now, time.Now()
			case time.Since(trouble) > patience:
				return now, false, nil
			}
		}
		select {
		case <-t.exited:
			if ctx.Err() == nil {
				return stage, false, fmt.Errorf("tor ended: %s", cmp.Or(t.lastWords(), "it said nothing"))
			}
			return stage, false, nil
		case <-ctx.Done():
			return stage, false, nil
		case <-time.After(pollEvery):
		}
	}
}

// lastWords are what tor complained of last.
func (t *trial) lastWords() string {
	b, _ := os.ReadFile(t.output)
	lines := strings.Split(string(b[max(0, len(b)-8192):]), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		for _, mark := range []string{"[err] ", "[warn] "} {
			if _, text, ok := strings.Cut(lines[i], mark); ok {
				return text
			}
		}
	}
	return ""
}

// quote makes a path a value that tor reads as one.
func quote(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
}
