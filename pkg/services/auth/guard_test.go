package auth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/pkg/config"
	"vpnd/pkg/fault"
)

type clock struct{ at time.Time }

func (c *clock) now() time.Time          { return c.at }
func (c *clock) advance(d time.Duration) { c.at = c.at.Add(d) }

func testGuard() (*guard, *clock) {
	c := &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	return newGuard(config.Guard{PerAccount: 4, PerAddress: 10, Global: 50, Window: config.Duration(10 * time.Minute)}, c.now), c
}

// judged is an attempt whose outcome is known at once.
func judged(t testing.TB, g *guard, buckets ...bucket) (ticket, bool, error) {
	tk, first, err := g.take(t.Context(), buckets...)
	tk.settle()
	return tk, first, err
}

func TestAttemptsWaitForThoseThatAreBeingJudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := testGuard()
		b := accountBucket("usr_a")
		var right []ticket
		for range 4 {
			tk, _, err := g.take(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			right = append(right, tk)
		}
		fifth := make(chan error, 1)
		go func() {
			_, _, err := g.take(t.Context(), b)
			fifth <- err
		}()
		synctest.Wait()
		select {
		case err := <-fifth:
			t.Fatalf("did not wait for the outcome of the others: %v", err)
		default:
		}
		right[0].giveBack() // the right password
		right[0].settle()
		if err := <-fifth; err != nil {
			t.Errorf("refused although the other was no failure: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := g.take(ctx, b); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that has gone: %v", err)
		}
	})
}

func TestABucketHoldsItsFailuresAndRefills(t *testing.T) {
	g, c := testGuard()
	b := accountBucket("usr_a")
	for i := range 4 {
		if _, _, err := judged(t, g, b); err != nil {
			t.Fatalf("failure %d: %v", i+1, err)
		}
	}
	_, first, err := judged(t, g, b)
	if !errors.Is(err, fault.Throttled) || !first {
		t.Fatalf("fifth: %v, first %v", err, first)
	}
	wait := fault.From(err).RetryAfter
	if wait < 150*time.Second || wait > 151*time.Second { // a quarter of the window
		t.Errorf("retry after %s", wait)
	}
	if _, first, _ := judged(t, g, b); first {
		t.Error("every refusal is the first")
	}
	c.advance(wait)
	if _, _, err := judged(t, g, b); err != nil {
		t.Errorf("after waiting: %v", err)
	}
	if _, _, err := judged(t, g, b); err == nil {
		t.Error("two attempts after waiting for one")
	}
	if _, _, err := judged(t, g, accountBucket("usr_b")); err != nil {
		t.Errorf("another account: %v", err)
	}
}

func TestARefusalTakesNothing(t *testing.T) {
	g, _ := testGuard()
	for range 4 {
		if _, _, err := judged(t, g, accountBucket("a"), addressBucket("192.0.2.1")); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		if _, _, err := judged(t, g, accountBucket("a"), addressBucket("192.0.2.1")); err == nil {
			t.Fatal("not refused")
		}
	}
	for i := range 6 { // ten less four
		if _, _, err := judged(t, g, addressBucket("192.0.2.1")); err != nil {
			t.Errorf("attempt %d from the address: %v", i, err)
		}
	}
}

func TestASuccessGivesBackOnlyWhatItTook(t *testing.T) {
	g, _ := testGuard()
	for i := range 9 { // an attacker guesses at other accounts, and signs in to their own in between
		if _, _, err := judged(t, g, accountBucket("usr_x"), addressBucket("192.0.2.1"), globalBucket); err != nil && i < 4 {
			t.Fatal(err)
		}
		own, _, err := judged(t, g, accountBucket("usr_own"), addressBucket("192.0.2.1"), globalBucket)
		if err != nil {
			break
		}
		own.giveBack()
	}
	left := 0
	for ; left < 20; left++ {
		if _, _, err := judged(t, g, addressBucket("192.0.2.1")); err != nil {
			break
		}
	}
	if left != 6 {
		t.Errorf("%d attempts are left from the address, want 10-4", left)
	}
}

func TestAddressesAreCountedByCustomer(t *testing.T) {
	for _, tc := range []struct{ a, b string }{
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::9"},
		{"2001:db8:1:2::1", "[2001:db8:1:2::1]:4605"},
		{"192.0.2.1", "::ffff:192.0.2.1"},
		{"192.0.2.1", "192.0.2.1:99"},
		{"fe80::1%eth0", "fe80::2%eth1"},
		{"", "garbage"},
	} {
		if addressOf(tc.a) != addressOf(tc.b) {
			t.Errorf("%q and %q differ: %s, %s", tc.a, tc.b, addressOf(tc.a), addressOf(tc.b))
		}
	}
	for _, tc := range []struct{ a, b string }{
		{"2001:db8:1:2::1", "2001:db8:1:3::1"}, {"192.0.2.1", "192.0.2.2"}, {"", "192.0.2.2"},
	} {
		if addressOf(tc.a) == addressOf(tc.b) {
			t.Errorf("%q and %q are the same", tc.a, tc.b)
		}
	}
}

func TestFullBucketsAreForgotten(t *testing.T) {
	g, c := testGuard()
	for i := range 50 {
		if _, _, err := judged(t, g, globalBucket, addressBucket(fmt.Sprint(i)), strangerBucket(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(g.full); n != 101 {
		t.Fatalf("%d buckets", n)
	}
	c.advance(time.Hour)
	for range 2000 { // each looks at a few
		tk, _, err := judged(t, g, accountBucket("a"))
		if err != nil {
			t.Fatal(err)
		}
		tk.giveBack()
	}
	if n := len(g.full); n > 2 {
		t.Errorf("%d buckets are left", n)
	}
}

// The instant kept for a bucket must behave like counting tokens one by one.
func TestGuardAgreesWithPlainTokenCounting(t *testing.T) {
	g, c := testGuard()
	rng := rand.New(rand.NewPCG(1, 2))
	type plain struct {
		tokens float64
		at     time.Time
	}
	oracle := map[bucket]*plain{}
	refill := func(b bucket) *plain {
		p := oracle[b]
		if p == nil {
			p = &plain{float64(g.size(b)), c.at}
			oracle[b] = p
		}
		p.tokens = min(float64(g.size(b)), p.tokens+c.at.Sub(p.at).Seconds()/g.interval(b).Seconds())
		p.at = c.at
		return p
	}
	const eps = 1e-6
	refused := 0
	for i := range 20000 {
		c.advance(time.Duration(rng.IntN(20000)) * time.Millisecond)
		all := []bucket{globalBucket, addressBucket(fmt.Sprint(rng.IntN(5))), accountBucket("x")}
		want := true
		for _, b := range all {
			if refill(b).tokens < 1-eps {
				want = false
			}
		}
		tk, _, err := judged(t, g, all...)
		if (err == nil) != want {
			t.Fatalf("step %d: got %v, want allowed=%v", i, err, want)
		}
		if err != nil {
			refused++
			continue
		}
		if rng.IntN(2) == 0 {
			tk.giveBack()
			continue
		}
		for _, b := range all {
			oracle[b].tokens--
		}
	}
	if refused < 100 || refused > 19000 {
		t.Errorf("%d refusals: the run shows little", refused)
	}
}

func TestTheJournalHoldsWhatCountsAndNoLoginNames(t *testing.T) {
	g, c := testGuard()
	for range 4 {
		if _, _, err := judged(t, g, accountBucket("usr_a"), strangerBucket("my password")); err != nil {
			t.Fatal(err)
		}
	}
	changes := g.changes()
	if len(changes) != 1 {
		t.Fatalf("changes %v", changes)
	}
	if again := g.changes(); len(again) != 0 {
		t.Errorf("written twice: %v", again)
	}
	g.unwritten(changes)
	if again := g.changes(); len(again) != 1 {
		t.Errorf("lost: %v", again)
	}
	next, nc := testGuard()
	nc.at = c.at
	for b, until := range changes {
		next.restore(b, until)
	}
	if _, _, err := judged(t, next, accountBucket("usr_a")); !errors.Is(err, fault.Throttled) {
		t.Errorf("a restart forgot: %v", err)
	}
	next.restore(accountBucket("usr_far"), c.at.Add(1000*time.Hour))
	nc.advance(10 * time.Minute)
	if _, _, err := judged(t, next, accountBucket("usr_far")); err != nil {
		t.Errorf("a wrong clock locks out for ever: %v", err)
	}
}

func TestNoncesAreClaimedOnceAndForgottenInTime(t *testing.T) {
	c := &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	s := &nonces{now: c.now, until: map[nonce]time.Time{}}
	until := c.at.Add(2 * time.Minute)
	if ok, err := s.claim(nonce{1}, until); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, _ := s.claim(nonce{1}, until); ok {
		t.Error("claimed twice")
	}
	for i := len(s.until); i < maxNonces; i++ {
		if ok, err := s.claim(nonce{2, byte(i), byte(i >> 8), byte(i >> 16)}, until); !ok || err != nil {
			t.Fatal(i, ok, err)
		}
	}
	if _, err := s.claim(nonce{3}, until); !errors.Is(err, fault.Throttled) {
		t.Errorf("one more than fits: %v", err)
	}
	c.advance(3 * time.Minute)
	if ok, err := s.claim(nonce{3}, c.at.Add(time.Minute)); !ok || err != nil {
		t.Errorf("after the window: %v, %v", ok, err)
	}
	if len(s.until) != 1 {
		t.Errorf("%d nonces are kept", len(s.until))
	}
}
