package torpath_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"vpnd/pkg/fault"
	"vpnd/pkg/torpath"
)

func fingerprint(i int) string { return fmt.Sprintf("%040X", i) }

func source(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// relay is a middle with an address in a network of its own.
func relay(i int) torpath.Relay {
	return torpath.Relay{Fingerprint: fingerprint(i), Nickname: fmt.Sprintf("n%d", i), Addr: netip.AddrFrom4([4]byte{byte(i >> 8), byte(i), 0, 1}),
		Flags: []string{"Fast", "Running", "Valid"}, Bandwidth: 100}
}

func exit(i int, country, ports string) torpath.Relay {
	r := relay(i)
	r.Exit, r.Country, r.Ports = true, country, policy(ports)
	return r
}

func policy(s string) torpath.PortPolicy {
	p, err := torpath.ParsePortPolicy(s)
	if err != nil {
		panic(err)
	}
	return p
}

// world makes a small network in which the rules collide often.
func world(rnd *rand.Rand) (relays []torpath.Relay, guards []string) {
	for i := range 3 + rnd.IntN(14) {
		r := relay(i)
		r.Addr = netip.AddrFrom4([4]byte{10, byte(rnd.IntN(8)), byte(i), 1})
		if rnd.IntN(2) == 0 {
			r.Addr6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0, byte(rnd.IntN(8)), 4: byte(i)})
		}
		r.Country = []string{"", "de", "nl", "us"}[rnd.IntN(4)]
		r.Bandwidth = rnd.Int64N(1000)
		r.Exit = rnd.IntN(2) == 0
		r.Exit6 = rnd.IntN(2) == 0
		r.Ports = policy([]string{"accept 80,443", "reject 25", "reject 1-65535"}[rnd.IntN(3)])
		if r.Exit6 {
			r.Ports6 = policy([]string{"accept 80", "accept 443"}[rnd.IntN(2)])
		}
		if rnd.IntN(6) == 0 {
			r.Flags = r.Flags[:rnd.IntN(3)]
		}
		for range rnd.IntN(4) {
			n := rnd.IntN(17)
			r.Family = append(r.Family, []string{"$" + strings.ToLower(fingerprint(n)), "$" + fingerprint(n) + "~x", fmt.Sprintf("N%d", n), fmt.Sprintf("ed25519:%d", n%4)}[rnd.IntN(4)])
		}
		relays = append(relays, r)
	}
	for range rnd.IntN(4) {
		guards = append(guards, fingerprint(rnd.IntN(len(relays)+1)))
	}
	return relays, guards
}

// kin is the family rule, told again in the plainest way.
func kin(a, b torpath.Relay) bool {
	names := func(list []string, r torpath.Relay) bool {
		return slices.ContainsFunc(list, func(s string) bool {
			return strings.EqualFold(s, r.Nickname) || strings.HasPrefix(strings.ToUpper(s), "$"+r.Fingerprint)
		})
	}
	shared := slices.ContainsFunc(a.Family, func(s string) bool { return strings.HasPrefix(s, "ed25519:") && slices.Contains(b.Family, s) })
	return shared || names(a.Family, b) && names(b.Family, a)
}

func together(a, b torpath.Relay, distinct bool) bool {
	x, y := a.Addr.As4(), b.Addr.As4()
	v6 := func(r torpath.Relay) string { b := r.Addr6.As16(); return string(b[:4]) }
	same6 := a.Addr6.IsValid() && b.Addr6.IsValid() && v6(a) == v6(b)
	return a.Fingerprint != b.Fingerprint && !kin(a, b) && (!distinct || x[0] != y[0] || x[1] != y[1]) && (!distinct || !same6)
}

func matches(r torpath.Relay, e torpath.Exits, t torpath.Target, avoid map[string]bool) bool {
	chosen := slices.Contains(e.Countries, r.Country) || slices.Contains(e.Fingerprints, r.Fingerprint) || e.Countries == nil && e.Fingerprints == nil
	reached := false
	switch {
	case t.Port == 0 && t.IPv6 && !t.IPv4:
		reached = r.Exit6
	case t.Port == 0:
		reached = true
	case t.IPv6 && !t.IPv4:
		reached = r.Exit6 && r.Ports6.Allows(t.Port)
	case t.IPv6:
		reached = r.Ports.Allows(t.Port) || r.Exit6 && r.Ports6.Allows(t.Port)
	default:
		reached = r.Ports.Allows(t.Port)
	}
	return r.Exit && len(r.Flags) == 3 && chosen && reached && !avoid[r.Fingerprint]
}

// Every answer is compared with a search through all paths there are.
func TestPathKeepsTheRules(t *testing.T) {
	answers := map[string]int{}
	for seed := range uint64(20000) {
		rnd := source(seed)
		relays, guards := world(rnd)
		distinct := rnd.IntN(3) > 0
		c := torpath.New(relays, distinct)
		var e torpath.Exits
		if rnd.IntN(4) > 0 {
			e = torpath.Exits{Countries: []string{"de", "nl"}[:1+rnd.IntN(2)], Fingerprints: []string{fingerprint(rnd.IntN(17))}}
		}
		target := torpath.Target{IPv4: rnd.IntN(2) == 0, IPv6: rnd.IntN(2) == 0, Port: []uint16{0, 25, 80, 443}[rnd.IntN(4)]}
		avoid := map[string]bool{fingerprint(rnd.IntN(17)): true}

		usable := func(r torpath.Relay) bool { return len(r.Flags) == 3 }
		matching, best, fresh := false, "", [2]bool{}
		for _, x := range relays {
			matching = matching || matches(x, e, target, avoid)
		}
		for _, g := range guards {
			guard, found := c.Relay(g)
			if !found || best != "" {
				continue
			}
			for _, x := range relays {
				for _, m := range relays {
					if matches(x, e, target, avoid) && usable(m) && together(guard, x, distinct) && together(guard, m, distinct) && together(m, x, distinct) {
						best = g
						fresh[0] = fresh[0] || !slices.Contains(guards, x.Fingerprint)
					}
				}
			}
		}
		path, err := c.Path(guards, e, target, avoid, source(seed))
		switch {
		case !matching:
			if f := fault.From(err); !errors.Is(err, fault.NotFound) || !errors.Is(err, torpath.ErrNoExit) || f.Reason != "no_exit" {
				t.Fatalf("seed %d: no exit matches, got %v, %v", seed, path, err)
			}
			answers["no exit"]++
			continue
		case best == "":
			if f := fault.From(err); !errors.Is(err, fault.NotFound) || !errors.Is(err, torpath.ErrNoPath) || f.Reason != "no_path" {
				t.Fatalf("seed %d: no path exists, got %v, %v", seed, path, err)
			}
			answers["no path"]++
			continue
		case err != nil || len(path) != 3 || path[0] != best:
			t.Fatalf("seed %d: got %v, %v, want a path from %s", seed, path, err, best)
		}
		answers["path"]++
		g, _ := c.Relay(path[0])
		m, _ := c.Relay(path[1])
		x, _ := c.Relay(path[2])
		if !matches(x, e, target, avoid) || !usable(m) || !together(g, x, distinct) || !together(g, m, distinct) || !together(m, x, distinct) {
			t.Fatalf("seed %d: path breaks a rule:\n%+v\n%+v\n%+v", seed, g, m, x)
		}
		if fresh[0] && slices.Contains(guards, path[2]) {
			t.Fatalf("seed %d: the exit is a guard in use, and need not be", seed)
		}
		freshMiddle := slices.ContainsFunc(relays, func(r torpath.Relay) bool {
			return usable(r) && !slices.Contains(guards, r.Fingerprint) && together(r, g, distinct) && together(r, x, distinct)
		})
		if freshMiddle && slices.Contains(guards, path[1]) {
			t.Fatalf("seed %d: the middle is a guard in use, and need not be", seed)
		}
		again, _ := c.Path(guards, e, target, avoid, source(seed))
		if !slices.Equal(path, again) {
			t.Fatalf("seed %d: %v, then %v", seed, path, again)
		}
	}
	t.Log(answers)
	for _, kind := range []string{"path", "no path", "no exit"} {
		if answers[kind] < 500 {
			t.Errorf("only %d cases of %s", answers[kind], kind)
		}
	}
}

// Relays are drawn in proportion to their bandwidth; one of none still counts.
func TestPathWeighsByBandwidth(t *testing.T) {
	weights := []int64{100, 300, 600, 0, -5}
	for hop := 1; hop <= 2; hop++ {
		// Middles compete among themselves only where there is one exit.
		relays := []torpath.Relay{relay(1), exit(2, "de", "accept 80")}
		if hop == 2 {
			relays[1] = relay(2)
		}
		for i, bw := range weights {
			r := relay(10 + i)
			if hop == 2 {
				r = exit(10+i, "de", "accept 80")
			}
			r.Bandwidth = bw
			relays = append(relays, r)
		}
		c := torpath.New(relays, true)
		const draws = 20000
		got := map[string]float64{}
		rnd := source(1)
		for range draws {
			p, err := c.Path([]string{fingerprint(1)}, torpath.Exits{Countries: []string{"de"}}, torpath.Target{Port: 80}, nil, rnd)
			if err != nil {
				t.Fatal(err)
			}
			got[p[hop]]++
		}
		for i, bw := range []float64{100, 300, 600, 1, 1} {
			// Five standard deviations; the seed is fixed, so it holds always or never.
			want := bw / 1002 * draws
			if got := got[fingerprint(10+i)]; math.Abs(got-want) > 5*math.Sqrt(want) {
				t.Errorf("hop %d, bandwidth %v: %v times, want about %.0f", hop, bw, got, want)
			}
		}
	}
}

func TestHugeBandwidthsDoNotOverflow(t *testing.T) {
	relays := []torpath.Relay{relay(1), relay(2)}
	for i := range 100 {
		x := exit(10+i, "de", "accept 80")
		x.Bandwidth = math.MaxInt64
		relays = append(relays, x)
	}
	if _, err := torpath.New(relays, true).Path([]string{fingerprint(1)}, torpath.Exits{}, torpath.Target{Port: 80}, nil, source(1)); err != nil {
		t.Error(err)
	}
}

func TestConsensus(t *testing.T) {
	slow, fast, bridge := exit(1, "de", "accept 80"), exit(2, "nl", "accept 80"), torpath.Relay{Fingerprint: fingerprint(3)}
	fast.Bandwidth = 200
	down := exit(4, "de", "accept 80")
	down.Flags = []string{"Valid", "Fast"}
	twin := slow
	twin.Bandwidth, twin.Nickname = 50, "twin"
	c := torpath.New([]torpath.Relay{twin, slow, bridge, fast, down}, true)
	var order []string
	for _, r := range c.Relays() {
		order = append(order, r.Nickname)
	}
	if got := strings.Join(order, ","); got != "n2,n1,n4," {
		t.Errorf("order %s", got)
	}
	if r, found := c.Relay("$" + strings.ToLower(fingerprint(2))); !found || r.Nickname != "n2" {
		t.Error(r, found)
	}
	if _, found := c.Relay(fingerprint(9)); found {
		t.Error("found what is not there")
	}
	for want, e := range []torpath.Exits{{Countries: []string{"us"}}, {Countries: []string{"de"}}, {Countries: []string{"de"}, Fingerprints: []string{fingerprint(2)}}} {
		if got := c.Usable(e); got != want {
			t.Errorf("%+v: %d", e, got)
		}
	}
	// A bridge has no flags and is a guard all the same.
	if p, err := c.Path([]string{fingerprint(9), fingerprint(3)}, torpath.Exits{}, torpath.Target{}, nil, source(1)); err != nil || p[0] != fingerprint(3) {
		t.Error(p, err)
	}
}

func BenchmarkPath(b *testing.B) {
	var relays []torpath.Relay
	for i := range 8000 {
		r := exit(i, []string{"de", "nl", "us"}[i%3], "accept 80,443")
		r.Exit, r.Bandwidth = i%5 == 0, int64(i)
		for j := range 20 {
			r.Family = append(r.Family, "$"+fingerprint(i/20*20+j))
		}
		relays = append(relays, r)
	}
	c := torpath.New(relays, true)
	rnd := source(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Path([]string{fingerprint(1)}, torpath.Exits{Countries: []string{"de"}}, torpath.Target{IPv4: true, Port: 443}, nil, rnd); err != nil {
			b.Fatal(err)
		}
	}
}
