//go:build linux

package tornet_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/lab"
	"vpnd/pkg/lab/tornet"
)

// world is the one lab with the one network that the tests share.
type world struct {
	lab  *lab.Lab
	net  *tornet.Network
	took time.Duration
}

var shared = sync.OnceValues(func() (w *world, err error) {
	w = &world{}
	if w.lab, err = lab.New(context.Background(), lab.Options{}); err != nil {
		return w, err
	}
	begin := time.Now()
	w.net, err = tornet.Start(context.Background(), w.lab)
	w.took = time.Since(begin)
	return w, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if err := end(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: after the tests:", err)
		code = 1
	}
	os.Exit(code)
}

// end closes what the tests shared and checks that nothing is left.
func end() (err error) {
	w, _ := shared() // with -test.run it may be built here, to be closed
	if w.net != nil {
		err = errors.Join(w.net.Close(), w.net.Close())
		if procs, e := w.lab.Processes(); e != nil || len(procs) > 0 {
			err = errors.Join(err, e, fmt.Errorf("processes are left: %v", procs))
		}
		for _, name := range w.lab.Names() {
			if _, e := w.lab.Machine(name).ReadFile("/run/tornet/geoip"); !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, fmt.Errorf("files are left on %s: %w", name, e))
			}
		}
		if e := w.net.StartExit("nl"); !errors.Is(e, fault.NotFound) {
			err = errors.Join(err, fmt.Errorf("an exit of a closed network starts: %w", e))
		}
	}
	if w.lab != nil {
		err = errors.Join(err, w.lab.Close(context.Background()))
	}
	return err
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// client starts an ordinary tor with an empty data folder in the machine Server
// and waits until it has bootstrapped.
func (w *world) client(t *testing.T, port int, extra ...string) *http.Client {
	t.Helper()
	w.bootstrap(t, port, extra...)
	// A name of its own gives each request a circuit of its own (tor's IsolateSOCKSAuth),
	// so that the second try is not lost in what held up the first.
	proxy := func(*http.Request) (*url.URL, error) {
		return &url.URL{Scheme: "socks5h", User: url.UserPassword(rand.Text(), "-"), Host: fmt.Sprintf("127.0.0.1:%d", port)}, nil
	}
	tr := &http.Transport{DialContext: w.lab.Machine(lab.Server).DialContext, Proxy: proxy, DisableKeepAlives: true}
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func (w *world) bootstrap(t *testing.T, port int, extra ...string) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	lines := append(w.net.TorrcLines(), "DataDirectory "+filepath.Join(dir, "data"), "Log notice file "+log,
		fmt.Sprintf("SocksPort 127.0.0.1:%d", port))
	torrc := strings.Join(append(lines, extra...), "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "torrc"), []byte(torrc), 0o600); err != nil {
		t.Error(err)
		return
	}
	cmd := w.lab.Machine(lab.Server).Command("tor", "--quiet", "-f", filepath.Join(dir, "torrc"))
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	// Less time than tor takes to ask for a directory again.
	err := eventually(20*time.Second, func() error {
		b, _ := os.ReadFile(log)
		if !strings.Contains(string(b), "Bootstrapped 100%") {
			return fmt.Errorf("tor does not bootstrap:\n%s", b)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("client %d bootstrapped in %.1f s", port, time.Since(begin).Seconds())
}

// eventually tries until f succeeds.
func eventually(within time.Duration, f func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// seen is the address that the target's page says.
func seen(t *testing.T, c *http.Client, host string) (a netip.Addr) {
	t.Helper()
	// A relay that could not reach another does not try again for a minute.
	err := eventually(90*time.Second, func() error { // as a user reloads: a circuit may break
		resp, err := c.Get("http://" + host + "/ip")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		a, err = netip.ParseAddr(strings.TrimSpace(string(b)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func exitOf(t *testing.T, n *tornet.Network, country string) tornet.Exit {
	t.Helper()
	i := slices.IndexFunc(n.Exits(), func(e tornet.Exit) bool { return e.Country == country })
	if i < 0 {
		t.Fatalf("no exit in %s: %v", country, n.Exits())
	}
	return n.Exits()[i]
}

func TestAnOrdinaryClientLeavesByAnExit(t *testing.T) {
	w := newWorld(t)
	t.Logf("from Start to ready: %.1f s", w.took.Seconds())
	c := w.client(t, 9050)
	isExit := func(a netip.Addr) bool {
		return slices.ContainsFunc(w.net.Exits(), func(e tornet.Exit) bool { return a == e.V4 || a == e.V6 })
	}
	for _, host := range []string{lab.TargetV4.String(), "[" + lab.TargetV6.String() + "]", "target.test"} {
		if got := seen(t, c, host); !isExit(got) {
			t.Errorf("%s sees %s, which is no exit of %v", host, got, w.net.Exits())
		}
	}
	begin := time.Now()
	if got := seen(t, c, w.net.Onion()); isExit(got) {
		t.Errorf("the onion page was fetched through the exit %s", got)
	}
	t.Logf("onion page in %.1f s", time.Since(begin).Seconds())
}

func TestFreshClientsBootstrap(t *testing.T) {
	w := newWorld(t)
	for round := range 2 {
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() { w.bootstrap(t, 9100+10*round+i) })
		}
		wg.Wait()
	}
}

func TestExitsAreInTheirCountries(t *testing.T) {
	w := newWorld(t)
	for i, e := range w.net.Exits() {
		c := w.client(t, 9060+i, "ExitNodes {"+e.Country+"}", "StrictNodes 1")
		if got := seen(t, c, lab.TargetV4.String()); got != e.V4 {
			t.Errorf("in %s: got %s, want %s", e.Country, got, e.V4)
		}
		if got := seen(t, c, "["+lab.TargetV6.String()+"]"); got != e.V6 {
			t.Errorf("in %s: got %s, want %s", e.Country, got, e.V6)
		}
		if len(e.Fingerprint) != 40 || !strings.Contains(w.net.GeoIP(), strings.ToUpper(e.Country)) {
			t.Errorf("%+v, geoip %q", e, w.net.GeoIP())
		}
	}
}

func TestAStoppedExitIsLeftAndComesBack(t *testing.T) {
	w := newWorld(t)
	c := w.client(t, 9070)
	for range 2 {
		if err := w.net.StopExit("de"); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := seen(t, c, lab.TargetV4.String()), exitOf(t, w.net, "nl").V4; got != want {
		t.Errorf("without de: got %s, want %s", got, want)
	}
	begin := time.Now()
	for range 2 {
		if err := w.net.StartExit("de"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("exit back in %.1f s", time.Since(begin).Seconds())
	c = w.client(t, 9071, "ExitNodes {de}", "StrictNodes 1")
	if got, want := seen(t, c, lab.TargetV4.String()), exitOf(t, w.net, "de").V4; got != want {
		t.Errorf("de again: got %s, want %s", got, want)
	}
	if err := w.net.StopExit("xx"); !errors.Is(err, fault.NotFound) {
		t.Errorf("an exit that is not there: %v", err)
	}
}

func TestStartRefuses(t *testing.T) {
	w := newWorld(t)
	for _, list := range [][]string{{"DE"}, {"deu"}, {"de", "de"}} {
		if _, err := tornet.StartWith(t.Context(), w.lab, tornet.Options{Countries: list}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", list, err)
		}
	}
	if _, err := tornet.Start(t.Context(), w.lab); !errors.Is(err, fault.Exists) {
		t.Errorf("a second network: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := tornet.Start(t.Context(), w.lab); !errors.Is(err, fault.Unavailable) {
		t.Errorf("without tor: %v", err)
	}
}
