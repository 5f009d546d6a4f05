//go:build linux

// Package e2e_test tests the whole system: vpnd, vpnctl and vpn as programs, in
// a lab, on real packets.
package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/e2e/apiclient"
	"vpnd/pkg/lab"
	"vpnd/pkg/lab/site"
	"vpnd/pkg/rpc"
)

// bin is the folder of the programs under test, built once a run.
var bin string

// What this binary is when it is not a test: a gateway that was taken over, or
// somebody else's program.
const (
	intruderArg = "intruder"
	foreignArg  = "foreign"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == intruderArg {
		os.Exit(intrude())
	}
	if len(os.Args) == 4 && os.Args[1] == foreignArg {
		os.Exit(foreign(os.Args[2], os.Args[3]))
	}
	dir, err := os.MkdirTemp("", "vpnd-e2e-")
	if err == nil {
		bin = dir
		err = lab.Build(context.Background(), dir, "vpnd/cmd/vpnd", "vpnd/cmd/vpnctl", "vpnd/client/cmd/vpn")
	}
	status := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the programs under test:", err)
	} else {
		status = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// cheap makes Argon2id cost next to nothing: what it costs is measured
// elsewhere.
const cheap = `
[auth.argon2]
memory_kib = 64
time = 1
threads = 1
`

// world is a site under test.
type world struct {
	*site.Site
	t      *testing.T
	daemon *site.Daemon
}

// newWorld builds a lab with vpnd ready in it.
func newWorld(t *testing.T, clients int, config string) *world {
	t.Helper()
	w, _ := emptyWorld(t, clients)
	if err := w.WriteConfig(w.Config() + cheap + config); err != nil {
		t.Fatal(err)
	}
	w.start()
	return w
}

// emptyWorld builds a lab in which vpnd is installed and not started.
func emptyWorld(t *testing.T, clients int) (*world, *lab.Lab) {
	t.Helper()
	l, err := lab.New(t.Context(), lab.Options{Clients: clients})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t}
	t.Cleanup(func() {
		if t.Failed() && w.Site != nil {
			w.showLogs()
		}
		closeLab(t, l)
	})
	if w.Site, err = site.New(l, bin); err != nil {
		t.Fatal(err)
	}
	return w, l
}

// start starts vpnd and waits until every service is ready.
func (w *world) start() {
	w.t.Helper()
	d, err := w.Start()
	if err != nil {
		w.t.Fatal(err)
	}
	w.daemon = d
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := w.WaitReady(ctx); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) showLogs() {
	log, _ := w.Machine(lab.Server).ReadFile(site.LogPath)
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	if len(lines) > 60 {
		lines = lines[len(lines)-60:]
	}
	w.t.Logf("the end of vpnd's output:\n%s", bytes.Join(lines, []byte("\n")))
}

// control is a connection to the admin API, as root.
func (w *world) control() *rpc.Conn {
	return rpc.DialUnix("control", "", rpc.Options{Patience: 10 * time.Second,
		Dial: func(ctx context.Context) (net.Conn, error) { return w.dialControl(ctx, "", "") }})
}

func (w *world) dialControl(ctx context.Context, _, _ string) (net.Conn, error) {
	return w.Machine(lab.Server).DialContext(ctx, "unix", "/run/vpnd/control.sock")
}

// ctl runs vpnctl and fails the test unless it exits with want.
func (w *world) ctl(want int, stdin string, args ...string) string {
	w.t.Helper()
	return w.run(want, stdin, lab.Server, "vpnctl", args...)
}

func (w *world) run(want int, stdin, machine, program string, args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	cmd := w.CommandContext(ctx, machine, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if got := site.ExitStatus(err); got != want {
		w.t.Fatalf("%s %s: exit status %d, want %d\n%s", program, strings.Join(args, " "), got, want, out)
	}
	return string(out)
}

// ctlJSON runs vpnctl -o json into v.
func (w *world) ctlJSON(v any, args ...string) {
	w.t.Helper()
	out := w.ctl(0, "", append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.t.Fatalf("vpnctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

const password = "a password for tests"

func (w *world) createUser(name string) {
	w.t.Helper()
	w.ctl(0, password+"\n", "user", "create", name, "--password-stdin")
}

// api is a client of the client API on a machine.
func (w *world) api(machine string) *apiclient.Client {
	m := w.Machine(machine)
	addr := net.JoinHostPort(w.Machine(lab.Server).IPv4().String(), "4605")
	return apiclient.Dial(addr, func(ctx context.Context) (net.Conn, error) { return m.DialContext(ctx, "tcp", addr) }, 10*time.Second)
}

// pin is the pin of the client API's certificate.
func (w *world) pin() string {
	var st struct {
		Pin string `json:"pin"`
	}
	w.ctlJSON(&st, "status")
	if st.Pin == "" {
		w.t.Fatal("status shows no pin")
	}
	return st.Pin
}

// connect signs a machine in with the client program and brings its tunnel up.
func (w *world) connect(machine, user, device string) {
	w.t.Helper()
	url := "https://" + w.Machine(lab.Server).IPv4().String()
	w.run(0, password+"\n", machine, "vpn", "login", url, "--pin", w.pin(), "--user", user, "--password-stdin", "--device", device)
	w.run(0, "", machine, "vpn", "up")
}

// get fetches a page on a machine.
func (w *world) get(machine, url string) (string, error) {
	return w.getIn(context.Background(), 10*time.Second, machine, url)
}

// getIn is get that ends with ctx, or gives up.
func (w *world) getIn(ctx context.Context, within time.Duration, machine, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	c := w.Machine(machine).HTTPClient()
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return strings.TrimSpace(string(b)), err
}

// peers reads the public keys that a lane's interface holds, from wireguard-go
// itself.
func (w *world) peers(iface string) map[string][]string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := w.Machine(lab.Server).DialContext(ctx, "unix", filepath.Join("/run/vpnd/lanes", iface+".sock"))
	if err != nil {
		w.t.Fatalf("ask %s: %v", iface, err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "get=1\n\n"); err != nil {
		w.t.Fatal(err)
	}
	var text strings.Builder
	buf := make([]byte, 64<<10)
	for !strings.HasSuffix(text.String(), "\n\n") {
		n, err := c.Read(buf)
		if err != nil {
			w.t.Fatalf("ask %s: %v", iface, err)
		}
		text.Write(buf[:n])
	}
	out := map[string][]string{}
	key := ""
	for line := range strings.Lines(text.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "public_key":
			key = value
			out[key] = nil
		case "allowed_ip":
			out[key] = append(out[key], value)
		}
	}
	return out
}

// eventually waits until check says nothing.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still, after %s: %v", within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func page(a netip.Addr, path string) string {
	return "http://" + netip.AddrPortFrom(a, 80).String() + path
}

func closeLab(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Errorf("close lab: %v", err)
	}
}

func mustSite(t *testing.T, l *lab.Lab) *site.Site {
	t.Helper()
	s, err := site.New(l, bin)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
