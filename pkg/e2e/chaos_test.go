//go:build linux

package e2e_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/e2e/apiclient"
	"vpnd/pkg/fault"
	"vpnd/pkg/lab"
)

// worker is one device that signs in, connects and closes all the time, and
// remembers what it was told.
type worker struct {
	name   string
	client *apiclient.Client
	rng    *rand.Rand

	device  string // acknowledged device id
	open    bool   // the last acknowledged state of the session …
	key     string // … and its key
	unsure  bool   // a call failed: the server may or may not have done it
	calls   int
	refused map[string]int // failures by code
}

func (wk *worker) step(ctx context.Context) {
	wk.calls++
	var err error
	switch op := wk.rng.IntN(10); {
	case wk.client.Tokens.AccessToken == "" || op == 0:
		err = wk.client.Login(ctx, wk.name, password, "device", wk.client.Tokens.DeviceID)
		if err == nil {
			wk.device = string(wk.client.Tokens.DeviceID)
		}
	case op <= 4:
		if op <= 2 || wk.client.Key.IsZero() {
			if err = wk.client.NewKey(); err != nil {
				break
			}
		}
		wk.unsure = true
		if _, err = wk.client.Initiate(ctx); err == nil {
			wk.open, wk.key, wk.unsure = true, wk.client.Key.Public().String(), false
		}
	case op <= 6:
		wk.unsure = true
		if err = wk.client.Close(ctx); err == nil {
			wk.open, wk.unsure = false, false
		}
	default:
		_, err = wk.client.Beat(ctx)
		if fault.CodeOf(err) == fault.Conflict && !wk.open {
			err = nil // no session, as it should be
		}
	}
	if err != nil && ctx.Err() == nil {
		wk.refused[string(fault.CodeOf(err))+" "+fault.ReasonOf(err)]++
	}
}

// TestNothingIsLostUnderRandomKills kills services, the supervisor, and all at
// once, a hundred times, while devices sign in, connect, close and ping.
func TestNothingIsLostUnderRandomKills(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	const kills, workers = 100, 6
	w := newWorld(t, 2, "[auth.guard]\nper_account = 100000\nper_address = 100000\nglobal = 1000000\n")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	w.createUser("steady")
	w.connect(lab.Client(1), "steady", "laptop")
	ping, err := w.Machine(lab.Client(1)).Ping(t.Context(), lab.TargetV4, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	ping6, err := w.Machine(lab.Client(1)).Ping(t.Context(), lab.TargetV6, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	crew := make([]*worker, workers)
	for i := range crew {
		crew[i] = &worker{name: "worker" + strconv.Itoa(i), client: w.api(lab.Client(2)),
			rng: rand.New(rand.NewPCG(seed, uint64(i+1))), refused: map[string]int{}}
		w.createUser(crew[i].name)
		wg.Go(func() {
			for ctx.Err() == nil {
				crew[i].step(ctx)
			}
		})
	}
	var created []string // acknowledged accounts
	var failedCreates atomic.Int64
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			req := &users.CreateRequest{}
			req.Body.Username, req.Body.Password = "extra"+strconv.Itoa(i), password
			if _, err := users.Create.Call(ctx, w.control(), req); err == nil {
				created = append(created, req.Body.Username)
			} else {
				failedCreates.Add(1)
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})

	killed := map[string]int{}
	for range kills {
		time.Sleep(time.Duration(50+rng.IntN(300)) * time.Millisecond)
		killed[w.killSomething(rng)]++
	}
	time.Sleep(500 * time.Millisecond)
	stop()
	wg.Wait()
	ctl, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.WaitReady(ctl); err != nil {
		t.Fatal(err)
	}
	r4, r6 := ping.Stop(), ping6.Stop()
	t.Logf("killed: %v", killed)
	t.Logf("pings: %d IPv4, %d lost; %d IPv6, %d lost; longest gap %s", r4.Sent, r4.Lost, r6.Sent, r6.Lost, max(r4.LongestGap, r6.LongestGap))
	if r4.Lost != 0 || r6.Lost != 0 || r4.Received == 0 || r6.Received == 0 {
		t.Errorf("an established tunnel lost pings: %+v %+v", r4, r6)
	}
	for _, wk := range crew {
		t.Logf("%s: %d calls, refused %v", wk.name, wk.calls, wk.refused)
	}
	t.Logf("%d accounts created meanwhile, %d attempts failed", len(created), failedCreates.Load())
	w.checkAcknowledged(crew, created)
	eventually(t, 15*time.Second, func() error { return w.agreement() })
}

// killSomething ends one process, or all of vpnd's, the hard way.
func (w *world) killSomething(rng *rand.Rand) string {
	w.t.Helper()
	procs, err := w.Processes()
	if err != nil {
		w.t.Fatal(err)
	}
	services := map[string]int{}
	for _, p := range procs {
		if args := p.Args; len(args) == 3 && args[1] == "service" && p.Machine == lab.Server {
			services[args[2]] = p.PID
		}
	}
	switch dice := rng.IntN(20); dice {
	case 0, 1:
		w.daemon.Kill()
		w.restart()
		return "supervisor"
	case 2, 3:
		for _, pid := range services {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone already
		}
		w.daemon.Kill()
		w.restart()
		return "everything"
	}
	if len(services) == 0 {
		return "nothing"
	}
	names := slices.Sorted(maps.Keys(services))
	name := names[rng.IntN(len(names))]
	_ = unix.Kill(services[name], unix.SIGKILL) // it may be gone already
	return name
}

// restart starts vpnd without waiting for it.
func (w *world) restart() {
	w.t.Helper()
	d, err := w.Start()
	if err != nil {
		w.t.Fatal(err)
	}
	w.daemon = d
}

// checkAcknowledged compares what the workers were told with what there is.
func (w *world) checkAcknowledged(crew []*worker, created []string) {
	w.t.Helper()
	ctx, c := w.t.Context(), w.control()
	list, err := sessions.List.Call(ctx, c, &sessions.ListRequest{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	open := map[string]string{}
	for _, s := range list.Items {
		open[s.Username] = s.PublicKey
	}
	devices, err := auth.DeviceList.Call(ctx, c, &auth.DeviceListRequest{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	known := map[string]bool{}
	for _, d := range devices.Items {
		known[string(d.ID)] = true
	}
	for _, wk := range crew {
		if wk.device != "" && !known[wk.device] {
			w.t.Errorf("%s: its acknowledged device %s is lost", wk.name, wk.device)
		}
		key, isOpen := open[wk.name]
		switch {
		case wk.unsure:
		case isOpen != wk.open:
			w.t.Errorf("%s: session open %v, acknowledged as %v", wk.name, isOpen, wk.open)
		case isOpen && key != wk.key:
			w.t.Errorf("%s: session with key %s, acknowledged with %s", wk.name, key, wk.key)
		}
	}
	for _, name := range created {
		if _, err := users.Get.Call(ctx, c, &users.Ref{User: name}); err != nil {
			w.t.Errorf("acknowledged account %s: %v", name, err)
		}
	}
}

// agreement compares sessions, leases and the peers of both interfaces.
func (w *world) agreement() error {
	ctx, c := w.t.Context(), w.control()
	list, err := sessions.List.Call(ctx, c, &sessions.ListRequest{Limit: 1000})
	if err != nil {
		return err
	}
	leases, err := ipam.Leases.Call(ctx, c, &ipam.ListRequest{Limit: 1000})
	if err != nil {
		return err
	}
	holder := map[netip.Addr]string{}
	byDevice := map[string]ipam.Lease{}
	for _, l := range leases.Items {
		byDevice[string(l.Device)] = l
		for _, a := range []netip.Addr{l.VPN.IPv4, l.VPN.IPv6, l.Tor.IPv4, l.Tor.IPv6} {
			if other, taken := holder[a]; taken {
				return fmt.Errorf("%s is leased to %s and %s", a, other, l.Device)
			}
			holder[a] = string(l.Device)
		}
	}
	want := [2]map[string][]string{{}, {}}
	for _, s := range list.Items {
		l, ok := byDevice[string(s.Device)]
		if !ok || l.VPN.IPv4 != s.VPNIPv4 || l.VPN.IPv6 != s.VPNIPv6 || l.Tor.IPv4 != s.TorIPv4 || l.Tor.IPv6 != s.TorIPv6 {
			return fmt.Errorf("session %s of %s has other addresses than its lease", s.ID, s.Username)
		}
		want[0][s.PublicKey] = []string{s.VPNIPv4.String() + "/32", s.VPNIPv6.String() + "/128"}
		want[1][s.PublicKey] = []string{s.TorIPv4.String() + "/32", s.TorIPv6.String() + "/128"}
	}
	for i, iface := range []string{"wg0", "wg1"} {
		have := map[string][]string{}
		for hexKey, ips := range w.peers(iface) {
			raw, err := hex.DecodeString(hexKey)
			if err != nil {
				return err
			}
			slices.Sort(ips)
			have[base64.StdEncoding.EncodeToString(raw)] = ips
		}
		for _, ips := range want[i] {
			slices.Sort(ips)
		}
		if !maps.EqualFunc(have, want[i], slices.Equal) {
			return fmt.Errorf("%s holds %v, sessions want %v", iface, have, want[i])
		}
	}
	return nil
}

func TestASecondVPNDOnTheSameStateIsRefused(t *testing.T) {
	w := newWorld(t, 0, "")
	out := w.run(5, "", lab.Server, "vpnd", "run", "--config", "/etc/vpnd/vpnd.toml")
	if !strings.Contains(out, strconv.Itoa(w.daemon.PID())) {
		t.Errorf("the refusal does not name the running vpnd's pid %d:\n%s", w.daemon.PID(), out)
	}
	list, err := supervisor.List.Call(t.Context(), w.control(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Items {
		if s.State != "ready" || s.Restarts != 0 {
			t.Errorf("%s is %s after %d restarts", s.Name, s.State, s.Restarts)
		}
	}
}

func TestAPrefixThatOverlapsAHostRouteIsRefusedAtStart(t *testing.T) {
	l, err := lab.New(t.Context(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeLab(t, l) })
	w := &world{t: t, Site: mustSite(t, l)}
	if err := w.WriteConfig(w.Config() + "ipv4 = \"198.18.0.0/16\"\n"); err != nil {
		t.Fatal(err)
	}
	out := w.run(5, "", lab.Server, "vpnd", "run", "--config", "/etc/vpnd/vpnd.toml")
	for _, want := range []string{"lanes.vpn.ipv4", "198.18.0.0/16", "198.18.0.0/24", lab.Interface} {
		if !strings.Contains(out, want) {
			t.Errorf("the refusal does not name %s:\n%s", want, out)
		}
	}
	if _, err := os.Stat("/run/vpnd"); err == nil {
		t.Error("something was made on the host")
	}
}
