package ipam_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/ipam"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/ipam"
	"vpnd/pkg/store"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const quarantine = 10 * time.Minute

// world is a state folder that outlives the allocators on it, and a clock.
type world struct {
	t   testing.TB
	dir string
	cfg ipam.Config
	now time.Time
	db  *store.DB
	*ipam.Allocator
}

func config(prefixes ...string) ipam.Config {
	c := ipam.Config{Quarantine: quarantine}
	for i, p := range prefixes {
		c.Prefixes[i] = netip.MustParsePrefix(p)
	}
	return c
}

// narrow has room for four devices.
func narrow() ipam.Config {
	return config("10.8.0.0/29", "fd08::/125", "10.9.0.0/29", "fd09::/125")
}

func newWorld(t testing.TB, cfg ipam.Config) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), cfg: cfg, now: start}
	w.restart()
	t.Cleanup(func() { _ = w.db.Close() })
	return w
}

// restart is a new process on the same state.
func (w *world) restart() {
	w.t.Helper()
	if err := w.tryRestart(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryRestart() (err error) {
	if w.db != nil {
		if err := w.db.Close(); err != nil {
			return err
		}
	}
	if w.db, err = store.Open(context.Background(), store.Options{Path: filepath.Join(w.dir, "ipam.db"), Migrations: ipam.Migrations()}); err != nil {
		return err
	}
	if w.Allocator, err = ipam.New(w.cfg, ipam.Deps{DB: w.db, Now: func() time.Time { return w.now }}); err != nil {
		return err
	}
	return w.Load(context.Background())
}

func (w *world) acquire(dev id.Device) api.Lease {
	w.t.Helper()
	l, err := w.Acquire(context.Background(), dev, owner(dev))
	if err != nil {
		w.t.Fatalf("acquire %s: %v", dev, err)
	}
	return l
}

func (w *world) release(dev id.Device) {
	w.t.Helper()
	if err := w.Release(context.Background(), dev); err != nil {
		w.t.Fatalf("release %s: %v", dev, err)
	}
}

// all lists the leases on disk by device.
func (w *world) all() map[id.Device]api.Lease {
	w.t.Helper()
	out := map[id.Device]api.Lease{}
	var after int64
	for {
		items, total, next, err := w.List(context.Background(), "", after, 3)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, l := range items {
			out[l.Device] = l
		}
		if next == 0 {
			if total != len(out) {
				w.t.Errorf("total %d, listed %d", total, len(out))
			}
			return out
		}
		after = next
	}
}

func owner(dev id.Device) id.User { return id.User("usr_" + dev) }

func addrs(l api.Lease) []netip.Addr {
	return []netip.Addr{l.VPN.IPv4, l.VPN.IPv6, l.Tor.IPv4, l.Tor.IPv6}
}

var addrEqual = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestLeaseIsStickyAcrossRestarts(t *testing.T) {
	w := newWorld(t, narrow())
	a, b := w.acquire("a"), w.acquire("b")
	if a.VPN.IPv4 == b.VPN.IPv4 {
		t.Fatal("two devices, one address")
	}
	for range 3 {
		w.restart()
		w.now = w.now.Add(time.Hour)
		if d := cmp.Diff(a, w.acquire("a"), addrEqual); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(b, w.acquire("b"), addrEqual); d != "" {
			t.Error(d)
		}
	}
	if _, err := w.Acquire(t.Context(), "a", "somebody else"); !errors.Is(err, fault.Conflict) {
		t.Errorf("another user's device: %v", err)
	}
}

func TestQuarantineBeforeReuseAlsoAcrossRestarts(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := newWorld(t, config("10.8.0.0/16", "fd08::/126", "10.9.0.0/16", "fd09::/64")) // one device
		was := w.acquire("a")
		w.release("a")
		w.release("a") // nothing to release is fine
		if restart {
			w.restart()
		}
		w.now = w.now.Add(quarantine - time.Second)
		_, err := w.Acquire(t.Context(), "b", "u")
		f := fault.From(err)
		if f.Code != fault.Exhausted || f.Reason != "pool_exhausted" || f.RetryAfter != time.Second {
			t.Fatalf("restart %v: got %#v", restart, f)
		}
		w.now = w.now.Add(time.Second)
		if got := w.acquire("b"); got.VPN.IPv6 != was.VPN.IPv6 {
			t.Errorf("got %s, want %s", got.VPN.IPv6, was.VPN.IPv6)
		}
		if st := w.Status().Pools[1]; st.Used != 1 || st.Quarantined != 0 || st.Free != 0 {
			t.Errorf("status %+v", st)
		}
	}
}

func TestExhaustedSaysHowToEnlarge(t *testing.T) {
	for i, full := range []ipam.Config{
		config("10.8.0.0/29", "fd08::/64", "10.9.0.0/16", "fd09::/64"),
		config("10.8.0.0/16", "fd08::/126", "10.9.0.0/16", "fd09::/64"),
		config("10.8.0.0/16", "fd08::/64", "10.9.0.0/29", "fd09::/64"),
		config("10.8.0.0/16", "fd08::/64", "10.9.0.0/16", "fd09::/126"),
	} {
		w := newWorld(t, full)
		var err error
		n := 0
		for err == nil {
			_, err = w.Acquire(t.Context(), id.Device(fmt.Sprint(n)), "u")
			n++
		}
		f := fault.From(err)
		want := []string{"lane vpn", "lane vpn", "lane tor", "lane tor"}[i]
		key := []string{"ipv4", "ipv6", "ipv4", "ipv6"}[i]
		if f.Code != fault.Exhausted || !strings.Contains(f.Message, want) || !strings.Contains(f.Message, full.Prefixes[i].String()) ||
			!strings.Contains(f.Hint, "key "+key+" under [lanes."+want[5:]+"]") {
			t.Errorf("%d: %q, hint %q", i, f.Message, f.Hint)
		}
		for j, p := range w.Status().Pools { // the failed attempt holds nothing
			if p.Used != uint64(n-1) || p.Quarantined != 0 {
				t.Errorf("%d: pool %d: %+v", i, j, p)
			}
		}
		// A wider prefix helps, and everybody keeps what they have.
		before := w.all()
		w.cfg.Prefixes[i] = netip.PrefixFrom(full.Prefixes[i].Addr(), full.Prefixes[i].Bits()-4).Masked()
		w.restart()
		if d := cmp.Diff(before, w.all(), addrEqual); d != "" {
			t.Error(d)
		}
		w.acquire("late")
	}
}

func TestChangedPrefixEndsOnlyLeasesThatDoNotFit(t *testing.T) {
	for _, tc := range []struct {
		name   string
		prefix string // new vpn IPv4
		keep   int    // of the devices with 10.8.0.2 to 10.8.0.9
	}{
		{"elsewhere", "10.66.0.0/16", 0},
		{"narrower, two are the broadcast address and the leak test's", "10.8.0.0/29", 4},
		{"inside, two are the gateway and the leak test's", "10.8.0.4/30", 0},
		{"wider", "10.0.0.0/12", 8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, config("10.8.0.0/24", "fd08::/64", "10.9.0.0/24", "fd09::/64"))
			before := map[id.Device]api.Lease{}
			for i := range 8 {
				dev := id.Device(fmt.Sprint("d", i))
				before[dev] = w.acquire(dev)
			}
			w.cfg.Prefixes[0], w.cfg.Quarantine = netip.MustParsePrefix(tc.prefix), 0
			w.restart()
			kept := w.all()
			if len(kept) != tc.keep {
				t.Errorf("kept %d, want %d", len(kept), tc.keep)
			}
			held := map[netip.Addr]id.Device{}
			for dev, l := range before {
				if k, ok := kept[dev]; ok {
					if d := cmp.Diff(l, k, addrEqual); d != "" {
						t.Error(d)
					}
				}
				for _, a := range addrs(l) {
					held[a] = dev
				}
			}
			// Addresses of the ended leases are still in use by running
			// sessions: nobody else gets them at once, not even without quarantine.
			for dev := range before {
				if _, ok := kept[dev]; ok {
					continue
				}
				l, err := w.Acquire(t.Context(), dev, owner(dev))
				if errors.Is(err, fault.Exhausted) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range addrs(l) {
					if _, ok := held[a]; ok {
						t.Errorf("%s was given again at once", a)
					}
				}
			}
		})
	}
}

func TestTheLeakTestsAddressesAreNeverLeased(t *testing.T) {
	reserved := []string{"10.8.0.6", "fd08::7", "10.9.0.6", "fd09::7"}
	for i := range reserved {
		cfg := config("10.8.0.0/24", "fd08::/120", "10.9.0.0/24", "fd09::/120")
		cfg.Prefixes[i] = narrow().Prefixes[i] // alone limits how many there are
		w := newWorld(t, cfg)
		given := 0
		for ; ; given++ {
			l, err := w.Acquire(t.Context(), id.Device(fmt.Sprint(given)), "u")
			if errors.Is(err, fault.Exhausted) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := addrs(l)[i]; got == netip.MustParseAddr(reserved[i]) {
				t.Errorf("%s was leased", got)
			}
		}
		if want := 4 + i%2; given != want { // all the others
			t.Errorf("%s: %d leases, want %d", cfg.Prefixes[i], given, want)
		}
	}
}

func TestAClockThatWasWrongTakesNoAddressAway(t *testing.T) {
	w := newWorld(t, config("10.8.0.0/16", "fd08::/126", "10.9.0.0/16", "fd09::/64"))
	w.now = start.AddDate(50, 0, 0)
	w.acquire("a")
	w.release("a")
	w.now = start
	w.restart()
	w.now = start.Add(quarantine)
	w.acquire("b")
}

func TestSweepForgetsWhatHasEnded(t *testing.T) {
	w := newWorld(t, narrow())
	w.acquire("a")
	w.release("a")
	rows := func() (n int) {
		err := w.db.Read(t.Context(), func(q store.Querier) error { return q.QueryRow(`SELECT count(*) FROM quarantine`).Scan(&n) })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := w.Sweep(t.Context()); err != nil || rows() != 4 {
		t.Fatalf("%v, %d rows left", err, rows())
	}
	w.now = w.now.Add(quarantine + time.Second)
	if err := w.Sweep(t.Context()); err != nil || rows() != 0 {
		t.Fatalf("%v, %d rows left", err, rows())
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t, config("10.8.0.0/24", "fd08::/64", "10.9.0.0/24", "fd09::/64"))
	w.cfg.Quarantine = 0
	w.restart()
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := range 30 {
				dev := id.Device(fmt.Sprint("d", (g*7+i)%20)) // each device is wanted by many
				switch {
				case (g+i)%3 == 0:
					if err := w.Release(t.Context(), dev); err != nil {
						t.Error(err)
					}
				case (g+i)%5 == 0:
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					if _, err := w.Acquire(ctx, dev, owner(dev)); err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				default:
					if _, err := w.Acquire(t.Context(), dev, owner(dev)); err != nil {
						t.Error(err) // nobody else's canceled call may be heard of here
					}
				}
			}
		})
	}
	all.Wait()
	w.check()
}

// check compares what the pools count with the leases on disk, now and after a
// restart.
func (w *world) check() {
	w.t.Helper()
	leases := w.all()
	seen := map[netip.Addr]id.Device{}
	for dev, l := range leases {
		for _, a := range addrs(l) {
			if other, ok := seen[a]; ok {
				w.t.Errorf("%s is held by %s and %s", a, dev, other)
			}
			seen[a] = dev
		}
	}
	for _, p := range w.Status().Pools {
		if p.Used != uint64(len(leases)) || p.Used+p.Quarantined+p.Free != p.Capacity {
			w.t.Errorf("%d leases, pool %+v", len(leases), p)
		}
	}
	before := w.Status()
	w.restart()
	if d := cmp.Diff(before, w.Status(), addrEqual, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		w.t.Errorf("after a restart: %s", d)
	}
}

func TestDiskFullIsClearAndLeaksNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	w := newWorld(t, config("10.8.0.0/28", "fd08::/64", "10.9.0.0/28", "fd09::/64"))
	_ = w.db.Close()
	w.db = nil
	w.dir = t.TempDir()
	if err := unix.Mount("tmpfs", w.dir, "tmpfs", 0, "mode=0700,size=512k"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() {
		_ = w.db.Close()
		if err := unix.Unmount(w.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w.restart()
	kept := w.acquire("kept")
	filler := filepath.Join(w.dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	_ = f.Close()
	var full error
	for i := 0; full == nil; i++ { // space that the database has already still counts
		dev := id.Device(fmt.Sprint("x", i))
		if _, full = w.Acquire(t.Context(), dev, "u"); full == nil {
			full = w.Release(t.Context(), dev)
		}
		w.now = w.now.Add(quarantine)
	}
	if got := fault.From(full); got.Code != fault.Unavailable || got.Reason != "disk_full" || !strings.Contains(got.Hint, w.dir) {
		t.Errorf("got %#v", got)
	}
	before := w.Status()
	for range 50 { // more than the pool holds
		if _, err := w.Acquire(t.Context(), "new", "u"); !errors.Is(err, fault.Unavailable) {
			t.Fatalf("got %v", err)
		}
		if err := w.Release(t.Context(), "kept"); !errors.Is(err, fault.Unavailable) {
			t.Fatalf("got %v", err)
		}
	}
	if after := w.Status(); before.Pools[0].Used != after.Pools[0].Used || before.Pools[0].Free != after.Pools[0].Free {
		t.Errorf("before %+v, after %+v", before.Pools[0], after.Pools[0])
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.acquire("new")
	if d := cmp.Diff(kept, w.acquire("kept"), addrEqual); d != "" {
		t.Error(d)
	}
	w.check()
}
