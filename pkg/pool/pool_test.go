package pool_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/pool"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func make1(t testing.TB, p string, reserved ...netip.Addr) *pool.Pool {
	t.Helper()
	made, err := pool.New(prefix(p), reserved...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func take(t testing.TB, p *pool.Pool, now time.Time) string {
	t.Helper()
	a, err := p.Take(now)
	if err != nil {
		t.Fatal(err)
	}
	return a.String()
}

func TestGatewayCapacityAndFirstAddress(t *testing.T) {
	for _, c := range []struct {
		prefix, gateway, first string
		capacity               uint64
	}{
		{"10.0.0.4/30", "10.0.0.5", "10.0.0.6", 1},
		{"10.8.0.0/24", "10.8.0.1", "10.8.0.2", 253},
		{"10.8.0.0/16", "10.8.0.1", "10.8.0.2", 65533},
		{"10.0.0.0/8", "10.0.0.1", "10.0.0.2", 1<<24 - 3},
		{"fd00::/126", "fd00::1", "fd00::2", 2},
		{"fd00:8::/64", "fd00:8::1", "fd00:8::2", math.MaxUint64 - 1},
		{"fd00:8::/63", "fd00:8::1", "fd00:8::2", math.MaxUint64},
		{"fd00:8::/48", "fd00:8::1", "fd00:8::2", math.MaxUint64},
	} {
		p := make1(t, c.prefix)
		if got := p.Gateway().String(); got != c.gateway {
			t.Errorf("%s: gateway %s, want %s", c.prefix, got, c.gateway)
		}
		if got := p.Capacity(); got != c.capacity {
			t.Errorf("%s: capacity %d, want %d", c.prefix, got, c.capacity)
		}
		if got := take(t, p, start); got != c.first {
			t.Errorf("%s: first %s, want %s", c.prefix, got, c.first)
		}
	}
}

func TestUnusablePrefixesSayWhy(t *testing.T) {
	for s, want := range map[string]string{
		"10.0.0.1/24":         "host bits",
		"10.0.0.0/31":         "too small",
		"11.0.0.0/7":          "host bits",
		"12.0.0.0/7":          "too wide",
		"0.0.0.0/0":           "too wide",
		"fd00::/127":          "too small",
		"fd00::/47":           "too wide",
		"127.0.0.0/24":        "loopback",
		"169.254.0.0/16":      "link-local",
		"224.1.0.0/16":        "multicast",
		"240.0.0.0/8":         "reserved",
		"0.0.0.0/8":           "this network",
		"fe80::/64":           "link-local",
		"ff02::/64":           "multicast",
		"::/64":               "reserved",
		"::ffff:10.0.0.0/112": "reserved",
	} {
		_, err := pool.New(prefix(s))
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) || fault.From(err).Hint == "" {
			t.Errorf("%s: got %v, want invalid with %q and a hint", s, err, want)
		}
	}
	if _, err := pool.New(netip.Prefix{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("zero prefix: got %v", err)
	}
	if _, err := pool.New(prefix("10.0.0.0/24"), addr("10.0.1.1")); !errors.Is(err, fault.Invalid) {
		t.Errorf("reserved outside: got %v", err)
	}
}

func TestReservedAddressesAreNeverGiven(t *testing.T) {
	// The gateway and broadcast are reserved anyway and count once.
	p := make1(t, "10.0.0.0/29", addr("10.0.0.3"), addr("10.0.0.3"), addr("10.0.0.1"), addr("10.0.0.7"))
	if got := p.Capacity(); got != 4 {
		t.Errorf("capacity %d, want 4", got)
	}
	var got []string
	for range 4 {
		got = append(got, take(t, p, start))
	}
	if d := cmp.Diff([]string{"10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"}, got); d != "" {
		t.Error(d)
	}
	for _, a := range []string{"10.0.0.0", "10.0.0.1", "10.0.0.3", "10.0.0.7"} {
		if err := p.Claim(addr(a)); !errors.Is(err, fault.Conflict) {
			t.Errorf("claim %s: got %v", a, err)
		}
	}
}

func TestClaim(t *testing.T) {
	p := make1(t, "10.0.0.0/24")
	for _, c := range []struct {
		addr string
		want error
	}{
		{"10.0.0.9", nil}, {"10.0.0.9", fault.Conflict}, {"10.0.1.9", fault.Invalid}, {"fd00::9", fault.Invalid}, {"::ffff:10.0.0.10", fault.Invalid},
	} {
		if err := p.Claim(addr(c.addr)); !errors.Is(err, c.want) {
			t.Errorf("claim %s: got %v, want %v", c.addr, err, c.want)
		}
	}
	if err := p.Claim(netip.Addr{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("zero address: got %v", err)
	}
}

func TestAHolderCanHaveItsRestingAddressBack(t *testing.T) {
	p := make1(t, "10.0.0.0/29")
	for range 5 {
		take(t, p, start)
	}
	back := addr("10.0.0.4")
	p.Release(back, start.Add(time.Hour))
	if err := p.Claim(back); err != nil {
		t.Fatal(err)
	}
	if a, err := p.Take(start.Add(2 * time.Hour)); !errors.Is(err, fault.Exhausted) {
		t.Fatalf("got %v, %v: the old quarantine gave it to another", a, err)
	}
}

func TestNeverUsedFirstThenLongestRested(t *testing.T) {
	p := make1(t, "10.0.0.0/29") // .2 to .6
	for range 3 {
		take(t, p, start)
	}
	p.Release(addr("10.0.0.3"), start.Add(time.Minute))
	p.Release(addr("10.0.0.2"), start.Add(2*time.Minute))
	later := start.Add(time.Hour)
	var got []string
	for range 4 {
		got = append(got, take(t, p, later))
	}
	if d := cmp.Diff([]string{"10.0.0.5", "10.0.0.6", "10.0.0.3", "10.0.0.2"}, got); d != "" {
		t.Error(d)
	}
}

func TestExhaustedTellsHowFullAndWhatToDo(t *testing.T) {
	p := make1(t, "10.0.0.0/29")
	for range 5 {
		take(t, p, start)
	}
	p.Release(addr("10.0.0.2"), start.Add(time.Minute))
	_, err := p.Take(start)
	f := fault.From(err)
	want := &fault.Error{
		Code: fault.Exhausted, Reason: "pool_exhausted", RetryAfter: time.Minute,
		Message: "no free address in 10.0.0.0/29: 4 in use, 1 in quarantine",
		Hint:    "configure a wider prefix (a /28 holds twice as many), or release addresses that nobody uses",
	}
	if d := cmp.Diff(want.Error(), f.Error()); d != "" || f.Code != want.Code || f.Hint != want.Hint || f.RetryAfter != want.RetryAfter || f.Reason != want.Reason {
		t.Fatalf("got %#v", f)
	}
	if got := take(t, p, start.Add(time.Minute)); got != "10.0.0.2" {
		t.Fatalf("got %s", got)
	}
}

func TestReleasingWhatIsNotHeldDoesNothing(t *testing.T) {
	p := make1(t, "10.0.0.0/29")
	a := addr(take(t, p, start))
	p.Release(a, start.Add(time.Minute))
	p.Release(a, start.Add(time.Hour))
	p.Release(addr("10.0.0.1"), start)
	p.Release(addr("10.0.0.5"), start)
	p.Release(netip.Addr{}, start)
	want := pool.Stats{Capacity: 5, Quarantined: 1, Free: 4}
	if d := cmp.Diff(want, p.Stats(start)); d != "" {
		t.Fatal(d)
	}
	want = pool.Stats{Capacity: 5, Free: 5}
	if d := cmp.Diff(want, p.Stats(start.Add(time.Minute))); d != "" {
		t.Fatal(d)
	}
}

// A wide pool whose holders come and go for ever uses rested addresses again
// instead of remembering every address it ever gave.
func TestAWidePoolDoesNotGrowForEver(t *testing.T) {
	p := make1(t, "fd00:8::/64")
	now := start
	seen := map[netip.Addr]bool{}
	for range 50_000 {
		a, err := p.Take(now)
		if err != nil {
			t.Fatal(err)
		}
		seen[a] = true
		p.Release(a, now.Add(10*time.Second))
		now = now.Add(time.Second)
	}
	if len(seen) > 1100 {
		t.Fatalf("%d addresses were given for one holder at a time", len(seen))
	}
}

// oracle is the slow and obvious pool: a map over every address.
type oracle struct {
	all   []netip.Addr
	held  map[netip.Addr]bool
	until map[netip.Addr]time.Time // given back
}

func (o *oracle) take(now time.Time) (netip.Addr, bool) {
	var best netip.Addr
	for _, a := range o.all {
		until, was := o.until[a]
		switch {
		case o.held[a]:
		case !was:
			return a, true
		case until.After(now):
		case !best.IsValid() || until.Before(o.until[best]):
			best = a
		}
	}
	return best, best.IsValid()
}

func (o *oracle) stats(now time.Time) pool.Stats {
	s := pool.Stats{Capacity: uint64(len(o.all))}
	for _, a := range o.all {
		switch {
		case o.held[a]:
			s.Used++
		case o.until[a].After(now):
			s.Quarantined++
		default:
			s.Free++
		}
	}
	return s
}

func TestRandomHistoriesAgainstAnOracle(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		name := []string{"10.0.0.0/27", "fd00::/122", "10.9.8.0/30", "10.1.0.0/25"}[seed%4]
		reserved := []netip.Addr{prefix(name).Addr().Next().Next()}
		if seed%4 == 2 {
			reserved = nil
		}
		p := make1(t, name, reserved...)
		o := &oracle{held: map[netip.Addr]bool{}, until: map[netip.Addr]time.Time{}}
		for a := p.Gateway().Next(); prefix(name).Contains(a); a = a.Next() {
			if !slices.Contains(reserved, a) && (a.Is6() || prefix(name).Contains(a.Next())) {
				o.all = append(o.all, a)
			}
		}
		now := start
		var exhausted, taken int
		for step := range 8000 {
			// Phases of filling and of emptying, so that both ends are met.
			grow := (step/400)%2 == 0
			any := o.all[rnd.IntN(len(o.all))]
			switch n := rnd.IntN(10); {
			case n < 2:
				now = now.Add(time.Duration(rnd.IntN(5000)) * time.Microsecond)
			case n < 3:
				if got, want := p.Claim(any) == nil, !o.held[any]; got != want {
					t.Fatalf("seed %d step %d: claim %s: %t, want %t", seed, step, any, got, want)
				}
				o.held[any] = true
				delete(o.until, any)
			case n < 8 == grow:
				a, err := p.Take(now)
				want, ok := o.take(now)
				if ok != (err == nil) || a != want {
					t.Fatalf("seed %d step %d: take %s (%v), want %s", seed, step, a, err, want)
				}
				if !ok {
					exhausted++
					continue
				}
				taken++
				o.held[a] = true
				delete(o.until, a)
			default:
				// Distinct ends, so that the order of equals does not matter.
				until := now.Add(time.Duration(rnd.IntN(20))*time.Millisecond + time.Duration(step))
				p.Release(any, until)
				if o.held[any] {
					delete(o.held, any)
					o.until[any] = until
				}
			}
			if d := cmp.Diff(o.stats(now), p.Stats(now)); d != "" {
				t.Fatalf("seed %d step %d: %s", seed, step, d)
			}
		}
		if exhausted == 0 || taken < 100 {
			t.Errorf("seed %d: %d taken, exhausted %d times: the history is too tame", seed, taken, exhausted)
		}
	}
}

func FuzzNew(f *testing.F) {
	for _, s := range []string{"10.8.0.0/16", "fd00:8::/64", "0.0.0.0/0", "255.255.255.252/30", "ffff::/126", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126", "10.0.0.1/24", "::ffff:1.2.3.4/120"} {
		f.Add(s, "10.8.0.2")
	}
	f.Add("fd00::/126", "fd00::2%eth0")
	f.Fuzz(func(t *testing.T, s, r string) {
		pre, err := netip.ParsePrefix(s)
		if err != nil {
			return
		}
		var reserved []netip.Addr
		if a, err := netip.ParseAddr(r); err == nil {
			reserved = append(reserved, a)
		}
		p, err := pool.New(pre, reserved...)
		if err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Fatalf("%s: %v", s, err)
			}
			return
		}
		for range min(p.Capacity(), 8) {
			a, err := p.Take(start)
			if err != nil || !pre.Contains(a) || a == p.Gateway() || slices.Contains(reserved, a) {
				t.Fatalf("%s: took %s, %v", s, a, err)
			}
			if a.Is4() && !pre.Contains(a.Next()) {
				t.Fatalf("%s: took the broadcast address", s)
			}
		}
	})
}

func BenchmarkTakeRelease(b *testing.B) {
	for _, held := range []int{10, 10_000} {
		b.Run(map[int]string{10: "10 held", 10_000: "10000 held"}[held], func(b *testing.B) {
			p := make1(b, "10.8.0.0/16")
			now := start
			for range held {
				take(b, p, now)
			}
			for b.Loop() {
				a, err := p.Take(now)
				if err != nil {
					b.Fatal(err)
				}
				p.Release(a, now.Add(10*time.Millisecond))
				now = now.Add(time.Microsecond)
			}
		})
	}
}

func TestLast(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.8.0.0/16": "10.8.255.254", "10.8.0.0/30": "10.8.0.2", "fd08::/64": "fd08::ffff:ffff:ffff:ffff", "fd08::/126": "fd08::3",
	} {
		if got := pool.Last(netip.MustParsePrefix(prefix)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: got %s, want %s", prefix, got, want)
		}
	}
}
